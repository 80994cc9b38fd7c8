// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/layer_samples.h>

#include <algorithm>

#include "quant/layer_rows.h"

namespace torchslim::quant {
namespace {

constexpr const char* kSamples = "torchslim::LayerSamples";

// Copies row `from` of each group of `rows` (groups, n, size) to row `to` of `kept` (groups, most, size).
void copy_row(const at::Tensor& rows, int64_t from, const at::Tensor& kept, int64_t to) {
  const int64_t size = rows.size(2);
  const float* source = rows.const_data_ptr<float>() + from * size;
  float* target = kept.mutable_data_ptr<float>() + to * size;
  for (int64_t g = 0; g < rows.size(0); ++g) {
    std::copy_n(source + g * rows.size(1) * size, size, target + g * kept.size(1) * size);
  }
}

}  // namespace

LayerSamples::LayerSamples(at::IntArrayRef weight_shape, const LayerGeometry& geometry, int64_t max_bytes,
                           uint64_t seed)
    : weight_shape_(weight_shape.vec()), geometry_(geometry), random_(seed) {
  const detail::LayerRows layer(kSamples, weight_shape, geometry);
  const auto row_bytes = static_cast<int64_t>(sizeof(float)) * (layer.groups() * layer.width() + layer.out_channels());
  most_ = max_bytes / row_bytes;
  TORCH_CHECK_VALUE(most_ >= 1, kSamples, ": max_bytes must hold a row of ", row_bytes, " bytes, got ", max_bytes);
}

void LayerSamples::add(const at::Tensor& input, const at::Tensor& target) {
  const detail::LayerRows layer(kSamples, weight_shape_, geometry_);
  layer.check_output(input, target);
  if (!inputs_.defined()) {
    inputs_ = at::empty({layer.groups(), most_, layer.width()}, at::kFloat);
    targets_ = at::empty({layer.groups(), most_, layer.out_channels() / layer.groups()}, at::kFloat);
  }
  layer.for_each_chunk(input, [&](const at::Tensor& rows, int64_t begin, int64_t end) {
    const auto from = rows.contiguous(), wanted = layer.output_rows(target, begin, end).contiguous();
    for (int64_t i = 0; i < from.size(1); ++i, ++rows_) {
      // Not std::uniform_int_distribution, whose numbers are each library's own; the bias of % is 2^-40 at most.
      const int64_t slot = rows_ < most_ ? rows_ : static_cast<int64_t>(random_() % static_cast<uint64_t>(rows_ + 1));
      if (slot < most_) {
        copy_row(from, i, inputs_, slot);
        copy_row(wanted, i, targets_, slot);
      }
    }
  });
}

at::Tensor LayerSamples::inputs() const {
  TORCH_CHECK_VALUE(rows_ > 0, kSamples, ": nothing was added; call add() with calibration data first");
  return inputs_.slice(1, 0, kept());
}

at::Tensor LayerSamples::targets() const {
  TORCH_CHECK_VALUE(rows_ > 0, kSamples, ": nothing was added; call add() with calibration data first");
  return targets_.slice(1, 0, kept());
}

}  // namespace torchslim::quant
