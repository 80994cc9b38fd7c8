// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torchslim/quant/qparams.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/rounding.h"
#include "quant/fake_quantize.h"
#include "quant/observer.h"

namespace torchslim::quant {
namespace {

constexpr const char* kChoose = "torchslim::choose_qparams";
constexpr const char* kChannels = "torchslim::channel_qparams";
constexpr const char* kWeight = "torchslim::weight_qparams";

// Half of the codes of a symmetric grid, and the code in its middle.
struct Middle {
  int64_t code;
  int64_t reach;
};

Middle middle_of(int64_t quant_min, int64_t quant_max) {
  const int64_t code = (quant_min + quant_max + 1) >> 1;  // rounds down: 0 for [-128, 127] and for [-127, 127]
  return {code, std::min(code - quant_min, quant_max - code)};
}

void check_observed(const char* op, double min_val, double max_val) {
  TORCH_CHECK_VALUE(!(min_val == INFINITY && max_val == -INFINITY), op,
                    ": no range has been observed yet; run the model in training mode or calibrate it first");
  TORCH_CHECK_VALUE(std::isfinite(min_val) && std::isfinite(max_val), op, ": the range must be finite, got [", min_val,
                    ", ", max_val, "]");
  TORCH_CHECK_VALUE(min_val <= max_val, op, ": min_val must be <= max_val, got ", min_val, " and ", max_val);
}

// Calls grid_of(min, max) for each element.
template <typename GridOf>
GridTensors grids_of(const char* op, const at::Tensor& min_val, const at::Tensor& max_val, const GridOf& grid_of) {
  TORCH_CHECK_VALUE(min_val.sizes() == max_val.sizes(), op, ": min_val and max_val must have one shape, got ",
                    min_val.sizes(), " and ", max_val.sizes());
  detail::check_device(op, "max_val", max_val, min_val.device());
  const auto low = min_val.detach().to(at::kCPU, at::kDouble).contiguous();
  const auto high = max_val.detach().to(at::kCPU, at::kDouble).contiguous();
  auto scale = at::empty(min_val.sizes(), at::kFloat);
  auto zero_point = at::empty(min_val.sizes(), at::kInt);
  for (int64_t c = 0; c < low.numel(); ++c) {
    const GridNumbers grid = grid_of(low.const_data_ptr<double>()[c], high.const_data_ptr<double>()[c]);
    scale.mutable_data_ptr<float>()[c] = grid.scale;
    zero_point.mutable_data_ptr<int32_t>()[c] = grid.zero_point;
  }
  return {scale.to(min_val.device()), zero_point.to(min_val.device())};
}

// A grid of one bit has a step that is the whole range, which float32 need not hold.
float as_scale(double step) {
  return static_cast<float>(std::min(step, static_cast<double>(std::numeric_limits<float>::max())));
}

}  // namespace

GridNumbers detail::grid_of(double min_val, double max_val, int64_t quant_min, int64_t quant_max, bool symmetric) {
  const double low = std::min(min_val, 0.0);
  const double high = std::max(max_val, 0.0);
  if (symmetric) {
    const auto middle = middle_of(quant_min, quant_max);
    return {as_scale(std::max(-low, high) / static_cast<double>(middle.reach)), static_cast<int32_t>(middle.code)};
  }
  const float scale = as_scale((high - low) / static_cast<double>(quant_max - quant_min));
  return {scale, detail::zero_point_of(scale > 0 ? low : 0, scale > 0 ? scale : 1, quant_min, quant_max)};
}

int32_t detail::zero_point_of(double low, float scale, int64_t quant_min, int64_t quant_max) {
  const double zero_point = static_cast<double>(quant_min) - core::round_half_even(low / scale);
  return static_cast<int32_t>(core::clamp(zero_point, static_cast<double>(quant_min), static_cast<double>(quant_max)));
}

GridNumbers choose_qparams(double min_val, double max_val, int64_t quant_min, int64_t quant_max, bool symmetric) {
  detail::check_grid(kChoose, quant_min, quant_max);
  check_observed(kChoose, min_val, max_val);
  auto grid = detail::grid_of(min_val, max_val, quant_min, quant_max, symmetric);
  if (grid.scale < kMinScale) {
    grid.scale = static_cast<float>(kMinScale);
    if (!symmetric) {
      grid.zero_point = detail::zero_point_of(std::min(min_val, 0.0), grid.scale, quant_min, quant_max);
    }
  }
  return grid;
}

GridTensors choose_qparams(const at::Tensor& min_val, const at::Tensor& max_val, int64_t quant_min, int64_t quant_max,
                           bool symmetric) {
  return grids_of(kChoose, min_val, max_val,
                  [&](double low, double high) { return choose_qparams(low, high, quant_min, quant_max, symmetric); });
}

GridTensors channel_qparams(const at::Tensor& min_val, const at::Tensor& max_val, int64_t quant_min, int64_t quant_max,
                            bool symmetric) {
  detail::check_grid(kChannels, quant_min, quant_max);
  return grids_of(kChannels, min_val, max_val, [&](double low, double high) {
    check_observed(kChannels, low, high);
    return detail::channel_grid({low, high}, quant_min, quant_max, symmetric);
  });
}

GridTensors weight_qparams(const at::Tensor& weight) {
  detail::check_input(kWeight, weight);
  TORCH_CHECK_VALUE(weight.dim() >= 1, kWeight, ": expected a weight of shape (O, ...), got a tensor of 0 dimensions");
  const auto rows = weight.detach().reshape({weight.size(0), -1});
  const auto largest =
      (rows.size(1) == 0 ? at::zeros({rows.size(0)}, rows.options()) : rows.abs().amax(1)).to(at::kCPU, at::kFloat);
  auto scale = at::empty({rows.size(0)}, at::kFloat);
  for (int64_t c = 0; c < scale.numel(); ++c) {
    const float most = largest.const_data_ptr<float>()[c];
    TORCH_CHECK_VALUE(std::isfinite(most), kWeight, ": the weight holds NaN or infinity in channel ", c);
    const float step = most / 127.0f;
    scale.mutable_data_ptr<float>()[c] = step < std::numeric_limits<float>::min() ? 1.0f : step;
  }
  return {scale.to(weight.device()), at::zeros({rows.size(0)}, weight.options().dtype(at::kInt))};
}

}  // namespace torchslim::quant
