// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/hessian.h>

#include "quant/layer_rows.h"

namespace torchslim::quant {
namespace {

constexpr const char* kHessian = "torchslim::HessianAccumulator";

}  // namespace

HessianAccumulator::HessianAccumulator(at::IntArrayRef weight_shape, const LayerGeometry& geometry)
    : weight_shape_(weight_shape.vec()), geometry_(geometry) {
  const detail::LayerRows layer(kHessian, weight_shape, geometry);
  sum_ = at::zeros({layer.groups(), layer.width(), layer.width()}, at::kDouble);
}

void HessianAccumulator::add(const at::Tensor& input) {
  const detail::LayerRows layer(kHessian, weight_shape_, geometry_);
  layer.for_each_chunk(input, [&](const at::Tensor& rows, int64_t, int64_t) {
    sum_ += at::bmm(rows.transpose(1, 2), rows);
    rows_ += rows.size(1);
  });
}

at::Tensor HessianAccumulator::hessian() const {
  TORCH_CHECK_VALUE(rows_ > 0, kHessian, ": no input was added; call add() with calibration data first");
  return sum_ * (2.0 / static_cast<double>(rows_));
}

}  // namespace torchslim::quant
