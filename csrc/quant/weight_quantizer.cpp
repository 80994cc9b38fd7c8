// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/TracerMode.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torchslim/quant/binary_fake_quantize.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/float_fake_quantize.h>
#include <torchslim/quant/learned_fake_quantize.h>
#include <torchslim/quant/level_fake_quantize.h>
#include <torchslim/quant/levels.h>
#include <torchslim/quant/weight_grid.h>
#include <torchslim/quant/weight_quantizer.h>

#include <algorithm>
#include <array>
#include <limits>

#include "quant/weight_grid.h"

namespace torchslim::quant {
namespace {

constexpr const char* kWeightQuantizer = "torchslim::WeightQuantizer";

struct WeightQuantizerKind {
  const char* name;
  int64_t fewest_bits, most_bits, own_bits;
  bool has_codes;
};

constexpr std::array<WeightQuantizerKind, 10> kWeightQuantizerKinds{{{"fake_quantize", 2, 8, 8, true},
                                                                     {"lsq", 2, 8, 8, true},
                                                                     {"binary", 1, 1, 1, true},
                                                                     {"ternary", 2, 2, 2, true},
                                                                     {"apot", 2, 8, 4, false},
                                                                     {"power_of_two", 2, 8, 4, false},
                                                                     {"float8_e4m3", 8, 8, 8, false},
                                                                     {"float8_e5m2", 8, 8, 8, false},
                                                                     {"float16", 16, 16, 16, false},
                                                                     {"bfloat16", 16, 16, 16, false}}};

const WeightQuantizerKind* find_kind(const std::string& name) {
  const auto* found = std::find_if(kWeightQuantizerKinds.begin(), kWeightQuantizerKinds.end(),
                                   [&](const WeightQuantizerKind& kind) { return name == kind.name; });
  return found == kWeightQuantizerKinds.end() ? nullptr : found;
}

FloatFormat float_format_of(const std::string& name) {
  if (name == "float8_e4m3") {
    return FloatFormat::e4m3fn();
  }
  return name == "float8_e5m2" ? FloatFormat::e5m2() : name == "float16" ? FloatFormat::fp16() : FloatFormat::bf16();
}

/// The scale of a weight whose magnitudes in a channel are all s, or s and 0.
at::Tensor scale_of_signs(const at::Tensor& rounded) {
  const at::Tensor scale = rounded.detach().abs().flatten(1).amax(1);
  return scale.masked_fill(scale < std::numeric_limits<float>::min(), 1.0);
}

}  // namespace

std::vector<std::string> WeightQuantizerOptions::quantizers() {
  std::vector<std::string> names;
  for (const WeightQuantizerKind& kind : kWeightQuantizerKinds) {
    names.emplace_back(kind.name);
  }
  return names;
}

bool WeightQuantizerOptions::takes(int64_t bits) const {
  const WeightQuantizerKind* kind = find_kind(quantizer());
  return kind != nullptr && bits >= kind->fewest_bits && bits <= kind->most_bits;
}

int64_t WeightQuantizerOptions::width() const {
  const WeightQuantizerKind* kind = find_kind(quantizer());
  return bits().value_or(kind == nullptr ? 8 : kind->own_bits);
}

int64_t WeightQuantizerOptions::largest_code() const { return std::max<int64_t>(1, (int64_t{1} << (width() - 1)) - 1); }

bool WeightQuantizerOptions::has_codes() const {
  const WeightQuantizerKind* kind = find_kind(quantizer());
  return kind != nullptr && kind->has_codes;
}

bool WeightQuantizerOptions::is_default() const {
  return quantizer() == "fake_quantize" && width() == 8 && scale_search() == "absmax";
}

void WeightQuantizerOptions::check(const std::string& who) const {
  const WeightQuantizerKind* kind = find_kind(quantizer());
  TORCH_CHECK_VALUE(kind != nullptr, who, ": the quantizer of a weight must be one of ",
                    fmt::format("{}", fmt::join(quantizers(), ", ")), ", got `", quantizer(), "`");
  if (kind->fewest_bits == kind->most_bits) {
    TORCH_CHECK_VALUE(width() == kind->own_bits, who, ": the weight quantizer `", quantizer(), "` has ", kind->own_bits,
                      kind->own_bits == 1 ? " bit" : " bits", ", got ", width(), "; leave `bits` out");
  }
  TORCH_CHECK_VALUE(takes(width()), who, ": the weight quantizer `", quantizer(), "` takes ", kind->fewest_bits, " to ",
                    kind->most_bits, " bits, got ", width(), width() == 1 ? "; 1 bit is `binary`" : "");
  TORCH_CHECK_VALUE(scale_search() == "absmax" || scale_search() == "mse", who,
                    ": scale_search must be `absmax` or `mse`, got `", scale_search(), "`");
  TORCH_CHECK_VALUE(scale_search() == "absmax" || quantizer() == "fake_quantize" || quantizer() == "lsq", who,
                    ": scale_search `", scale_search(), "` goes with `fake_quantize` and `lsq`, not with `",
                    quantizer(), "`");
}

WeightQuantizerImpl::WeightQuantizerImpl(const WeightQuantizerOptions& options, const at::Tensor& weight)
    : torch::nn::Module("torchslim::quant::WeightQuantizer"), options(options) {
  options.check(kWeightQuantizer);
  if (options.quantizer() == "lsq") {
    const auto grid = WeightGridOptions().bits(options.width()).scale_search(options.scale_search());
    scale = register_parameter("scale", weight_scale(weight, grid));
  }
}

void WeightQuantizerImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::WeightQuantizer(quantizer=" << options.quantizer() << ", bits=" << options.width()
         << (frozen_ ? ", frozen" : "") << ")";
}

RoundedWeight WeightQuantizerImpl::forward(const at::Tensor& weight) {
  const int64_t largest = options.largest_code();
  if (frozen_) {
    return {fake_quantize(weight, scale, at::zeros_like(scale, at::kInt), -largest, largest, 0), scale};
  }
  const std::string& name = options.quantizer();
  if (name == "lsq") {
    const at::Tensor positive = positive_scale(scale);
    const at::Tensor zero_point = at::zeros_like(scale, at::kInt);
    return {learned_fake_quantize(weight, positive, zero_point, -largest, largest, 0, "per_channel"),
            positive.detach()};
  }
  if (name == "fake_quantize" && options.scale_search() == "absmax") {
    const auto [rounded, steps] = fake_quantize_weight(weight, options.width());
    return {rounded, steps};
  }
  if (name == "fake_quantize") {
    const auto grid = WeightGridOptions().bits(options.width()).scale_search(options.scale_search());
    const at::Tensor steps = weight_scale(weight.detach(), grid);
    return {fake_quantize(weight, steps, at::zeros_like(steps, at::kInt), -largest, largest, 0), steps};
  }
  if (name == "binary" || name == "ternary") {
    const at::Tensor rounded = name == "binary" ? binary_fake_quantize(weight, 0) : ternary_fake_quantize(weight, 0);
    return {rounded, scale_of_signs(rounded)};
  }
  return {on_levels(weight), {}};
}

at::Tensor WeightQuantizerImpl::on_levels(const at::Tensor& weight) const {
  const std::string& name = options.quantizer();
  if (name == "apot" || name == "power_of_two") {
    const at::Tensor levels =
        (name == "apot" ? apot_levels(options.width()) : power_of_two_levels(options.width())).to(weight.device());
    return level_fake_quantize(weight, levels, absmax_scale(weight.detach(), 1.0, 0), 0);
  }
  const FloatFormat format = float_format_of(name);
  return float_fake_quantize(weight, format, absmax_scale(weight.detach(), format.max(), 0), 0);
}

QuantizedWeight WeightQuantizerImpl::quantize(const at::Tensor& weight) {
  TORCH_CHECK_VALUE(options.has_codes(), kWeightQuantizer, ": `", options.quantizer(), "` gives no integer codes");
  detail::check_grid_weight(kWeightQuantizer, weight);
  const at::AutoGradMode no_grad(false);
  const RoundedWeight rounded = forward(weight.detach());
  const at::Tensor steps = detail::over_channels(rounded.scale, weight.dim());
  return {(rounded.weight / steps).round_().to(at::kChar), rounded.scale};
}

at::Tensor WeightQuantizerImpl::traced(const at::Tensor& weight) {
  if (!options.has_codes()) {
    const at::tracer::impl::NoTracerDispatchMode untraced;
    return forward(weight.detach()).weight;
  }
  at::Tensor steps;
  at::Tensor zero_point;
  {
    const at::tracer::impl::NoTracerDispatchMode untraced;
    steps = forward(weight.detach()).scale.detach();
    zero_point = at::zeros_like(steps, at::kInt);
  }
  const int64_t largest = options.largest_code();
  // Rounding to nearest does not give signs, so those come first; the grid then leaves them as they are.
  const bool signs = options.quantizer() == "binary" || options.quantizer() == "ternary";
  return fake_quantize(signs && !frozen_ ? forward(weight).weight : weight, steps, zero_point, -largest, largest, 0);
}

void WeightQuantizerImpl::freeze(const at::Tensor& grid) {
  TORCH_CHECK_VALUE(options.has_codes(), kWeightQuantizer, ": `", options.quantizer(), "` has no grid to freeze");
  TORCH_CHECK_VALUE(grid.dim() == 1 && grid.scalar_type() == at::kFloat, kWeightQuantizer,
                    ": scale must be float32 of shape (out_channels), got ", grid.scalar_type(), " of shape ",
                    grid.sizes());
  TORCH_CHECK_VALUE((grid.isfinite() & (grid >= std::numeric_limits<float>::min())).all().item<bool>(),
                    kWeightQuantizer, ": scale must be > 0, normal and finite in each channel");
  if (frozen_) {
    scale.set_data(grid.detach().clone());
    return;
  }
  if (parameters_.contains("scale")) {
    parameters_.erase("scale");
  }
  scale = register_buffer("scale", grid.detach().clone());
  frozen_ = true;
}

}  // namespace torchslim::quant
