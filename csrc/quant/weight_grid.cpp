// SPDX-License-Identifier: BSD-3-Clause
#include "quant/weight_grid.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/rounding.h"
#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr const char* kScale = "torchslim::weight_scale";
constexpr const char* kRound = "torchslim::round_weight";
constexpr int64_t kShares = 80;  // GPTQ's authors search the same: 1 - i / 100

double squared_error(const float* row, int64_t size, float scale, float limit) {
  const float inverse = 1.0f / scale;
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) {
    const float code = core::clamp(core::round_half_even(row[i] * inverse), -limit, limit);
    const double error = row[i] - code * scale;
    sum += error * error;
  }
  return sum;
}

float best_share(const float* row, int64_t size, float absmax_scale, float limit) {
  float best = absmax_scale;
  double least = squared_error(row, size, best, limit);
  for (int64_t i = 1; i < kShares && least > 0; ++i) {
    const float scale = absmax_scale * (1.0f - static_cast<float>(i) / 100.0f);
    if (scale < std::numeric_limits<float>::min()) {
      break;
    }
    const double error = squared_error(row, size, scale, limit);
    if (error < least) {
      best = scale;
      least = error;
    }
  }
  return best;
}

void check_scale_of(const at::Tensor& scale, const at::Tensor& weight) {
  TORCH_CHECK_TYPE(scale.scalar_type() == at::kFloat, kRound, ": scale must be float32, got ", scale.scalar_type());
  TORCH_CHECK_VALUE(scale.dim() == 1 && scale.numel() == weight.size(0), kRound, ": scale must have shape [",
                    weight.size(0), "], one number for each output channel, got ", scale.sizes());
  detail::check_device(kRound, "scale", scale, weight.device());
  TORCH_CHECK_VALUE((scale.isfinite() & (scale >= std::numeric_limits<float>::min())).all().item<bool>(), kRound,
                    ": scale must be > 0, normal and finite in each channel");
}

}  // namespace

void detail::check_grid_weight(const char* who, const at::Tensor& weight) {
  check_input(who, weight);
  TORCH_CHECK_VALUE(weight.dim() >= 2 && weight.numel() > 0, who,
                    ": weight must be (out_channels, ...) of at least 2 dimensions and not empty, got shape ",
                    weight.sizes());
  const auto finite = weight.detach().isfinite().flatten(1).all(1).to(at::kCPU).contiguous();
  const bool* ok = finite.const_data_ptr<bool>();
  const int64_t channel = std::find(ok, ok + finite.numel(), false) - ok;
  TORCH_CHECK_VALUE(channel == finite.numel(), who, ": the weight holds NaN or infinity in channel ", channel);
}

at::Tensor detail::over_channels(const at::Tensor& channels, int64_t dims) {
  std::vector<int64_t> shape(dims, 1);
  shape[0] = channels.numel();
  return channels.reshape(shape);
}

GridWeight detail::weight_of_codes(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& like) {
  const auto value = codes.to(at::kFloat).mul_(over_channels(scale, codes.dim()));
  return {value.to(like.scalar_type()), scale, codes};
}

void WeightGridOptions::check(const char* who) const {
  TORCH_CHECK_VALUE(bits() >= 2 && bits() <= 8, who, ": bits must be in [2, 8], got ", bits());
  TORCH_CHECK_VALUE(scale_search() == "absmax" || scale_search() == "mse", who,
                    ": scale_search must be `absmax` or `mse`, got `", scale_search(), "`");
}

at::Tensor weight_scale(const at::Tensor& weight, const WeightGridOptions& options) {
  options.check(kScale);
  detail::check_grid_weight(kScale, weight);
  const auto rows = weight.detach().to(at::kCPU, at::kFloat).flatten(1).contiguous();
  const int64_t size = rows.size(1);
  const float* from = rows.const_data_ptr<float>();
  const auto limit = static_cast<float>(options.largest_code());
  auto scale = at::empty({rows.size(0)}, at::kFloat);
  float* to = scale.mutable_data_ptr<float>();
  const bool search = options.scale_search() == "mse";
  at::parallel_for(0, rows.size(0), std::max<int64_t>(1, 4096 / size), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const float* row = from + c * size;
      float most = 0;
      for (int64_t i = 0; i < size; ++i) {
        most = std::max(most, std::fabs(row[i]));
      }
      const float step = most / limit;
      to[c] = step < std::numeric_limits<float>::min() ? 1.0f : search ? best_share(row, size, step, limit) : step;
    }
  });
  TORCH_CHECK_VALUE(scale.isfinite().all().item<bool>(), kScale, ": the weight is beyond float32");
  return scale.to(weight.device());
}

GridWeight round_weight(const at::Tensor& weight, const WeightGridOptions& options, const at::Tensor& scale) {
  options.check(kRound);
  detail::check_grid_weight(kRound, weight);
  if (scale.defined()) {
    check_scale_of(scale, weight);
  }
  const at::Tensor steps = scale.defined() ? scale.detach() : weight_scale(weight, options);
  const auto limit = static_cast<double>(options.largest_code());
  const auto inverse = detail::over_channels(steps.reciprocal(), weight.dim());
  const auto codes = (weight.detach().to(at::kFloat) * inverse).round_().clamp_(-limit, limit).to(at::kChar);
  return detail::weight_of_codes(codes, steps, weight);
}

namespace {

at::Tensor weight_scale_op(const at::Tensor& weight, int64_t bits, c10::string_view search) {
  return weight_scale(weight, WeightGridOptions().bits(bits).scale_search(std::string(search)));
}

at::Tensor weight_scale_meta(const at::Tensor& weight, int64_t bits, c10::string_view search) {
  WeightGridOptions().bits(bits).scale_search(std::string(search)).check(kScale);
  TORCH_CHECK_VALUE(weight.dim() >= 2, kScale, ": weight must be (out_channels, ...), got shape ", weight.sym_sizes());
  return weight.new_empty_symint({weight.sym_size(0)}, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace

// An op, so that a compiled forward that searches its scale stays whole.
TORCH_LIBRARY_FRAGMENT(torchslim, m) { m.def("weight_scale(Tensor weight, int bits, str scale_search) -> Tensor"); }

TORCH_LIBRARY_IMPL(torchslim, Meta, m) { m.impl("weight_scale", weight_scale_meta); }

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { m.impl("weight_scale", weight_scale_op); }

}  // namespace torchslim::quant
