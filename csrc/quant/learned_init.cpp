// SPDX-License-Identifier: BSD-3-Clause
// Where learned quantisers begin: a few numbers from the first batch.
#include <ATen/TensorOperators.h>
#include <ATen/ops/aminmax.h>
#include <torchslim/quant/learned_fake_quantize.h>
#include <torchslim/quant/learned_modules.h>

#include <cmath>

#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr const char* kInitialize = "torchslim::initialize";
constexpr double kNothing = 1.0 / (1 << 23);  // a scale or range below it begins at 1 instead

// Returns x as rows of channels, or one row without an axis. Throws unless it has elements.
at::Tensor in_rows(const at::Tensor& x, std::optional<int64_t> axis) {
  detail::check_input(kInitialize, x);
  const int64_t channel_axis = axis ? detail::check_axis(kInitialize, *axis, x.dim()) : 0;
  TORCH_CHECK_VALUE(x.numel() > 0, kInitialize, ": the first batch has no elements, its shape is ", x.sizes());
  const auto values = x.detach();
  return axis ? values.movedim(channel_axis, 0).reshape({x.size(channel_axis), -1}) : values.reshape({1, -1});
}

at::Tensor out_of_rows(const at::Tensor& values, std::optional<int64_t> axis) {
  return axis ? values : values.reshape({});
}

void check_finite_values(const at::Tensor& values) {
  TORCH_CHECK_VALUE(values.isfinite().all().item<bool>(), kInitialize, ": the first batch holds NaN or infinity");
}

struct Extreme {
  at::Tensor low, high;
};

// The range of each row, widened to hold 0.
Extreme extremes_of(const at::Tensor& rows) {
  const auto [low, high] = at::aminmax(rows, 1);
  Extreme extreme{low.to(at::kFloat), high.to(at::kFloat)};
  check_finite_values(extreme.high - extreme.low);
  return {extreme.low.clamp_max(0), extreme.high.clamp_min(0)};
}

}  // namespace

at::Tensor initial_scale(const at::Tensor& x, int64_t quant_max, std::optional<int64_t> axis) {
  TORCH_CHECK_VALUE(quant_max > 0, kInitialize, ": quant_max must be > 0, got ", quant_max);
  const auto means = in_rows(x, axis).abs().mean(1, /*keepdim=*/false, at::kDouble);
  check_finite_values(means);
  const auto scale = (means * (2 / std::sqrt(static_cast<double>(quant_max)))).to(at::kFloat);
  return out_of_rows(scale.masked_fill(scale < kNothing, 1.0), axis);
}

std::tuple<at::Tensor, at::Tensor> initial_range(const at::Tensor& x, std::optional<int64_t> axis) {
  const auto [low, high] = extremes_of(in_rows(x, axis));
  const auto range = high - low;
  return {out_of_rows(low, axis), out_of_rows(range.masked_fill(range < kNothing, 1.0), axis)};
}

std::tuple<at::Tensor, at::Tensor> initial_qparams(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                                   std::optional<int64_t> axis) {
  const auto [low, range] = initial_range(x, axis);
  const auto [scale, zero_point] = trainable_range_qparams(low, range, quant_min, quant_max);
  return {scale, zero_point.round()};
}

at::Tensor initial_alpha(const at::Tensor& x, std::optional<int64_t> axis) {
  const auto high = extremes_of(in_rows(x, axis)).high;
  return out_of_rows(high.masked_fill(high < kNothing, 1.0), axis);
}

at::Tensor initial_log2_threshold(const at::Tensor& x, std::optional<int64_t> axis) {
  const auto [low, high] = extremes_of(in_rows(x, axis));
  const auto largest = at::maximum(-low, high);
  return out_of_rows(largest.masked_fill(largest < kNothing, 1.0).log2(), axis);
}

}  // namespace torchslim::quant
