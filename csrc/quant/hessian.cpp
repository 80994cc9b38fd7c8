// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
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

void HessianAccumulator::add(const at::Tensor& input, const at::Tensor& float_input) {
  const detail::LayerRows layer(kHessian, weight_shape_, geometry_);
  TORCH_CHECK_VALUE(rows_ == 0 || float_input.defined() == drift_.defined(), kHessian,
                    ": every batch must have a float input or none, got one ",
                    float_input.defined() ? "with" : "without");
  const auto add_rows = [&](const at::Tensor& rows) {
    sum_ += at::bmm(rows.transpose(1, 2), rows);
    rows_ += rows.size(1);
  };
  if (!float_input.defined()) {
    layer.for_each_chunk(input, [&](const at::Tensor& rows, int64_t, int64_t) { add_rows(rows); });
    return;
  }
  TORCH_CHECK_VALUE(float_input.sizes() == input.sizes(), kHessian, ": the float input must have the input's shape ",
                    input.sizes(), ", got ", float_input.sizes());
  layer.for_each_pair(input, float_input, [&](const at::Tensor& rows, const at::Tensor& in_float) {
    drift_ = drift_.defined() ? drift_ : at::zeros_like(sum_);
    drift_ += at::bmm((in_float - rows).transpose(1, 2), rows);
    add_rows(rows);
  });
}

at::Tensor HessianAccumulator::hessian() const {
  TORCH_CHECK_VALUE(rows_ > 0, kHessian, ": no input was added; call add() with calibration data first");
  return sum_ * (2.0 / static_cast<double>(rows_));
}

at::Tensor HessianAccumulator::drift() const {
  TORCH_CHECK_VALUE(
      drift_.defined(), kHessian,
      ": no float input was added; call add() with what the float network gives the layer beside its input");
  return drift_ * (2.0 / static_cast<double>(rows_));
}

}  // namespace torchslim::quant
