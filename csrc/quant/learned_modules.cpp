// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TracerMode.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torchslim/quant/learned_modules.h>

#include "quant/learned_fake_quantize.h"

namespace torchslim::quant {
namespace detail {

bool learned_flag(const at::Tensor& flag) {
  at::tracer::impl::NoTracerDispatchMode not_recorded;
  return flag.item<uint8_t>() != 0;
}

void set_state(const at::Tensor& state, const at::Tensor& values) { state.set_data(values.to(state.options())); }

void check_learned_options(const char* module, int64_t quant_min, int64_t quant_max) {
  check_range(module, quant_min, quant_max);
  TORCH_CHECK_VALUE(quant_min < quant_max, module, ": the grid has one point: quant_min = quant_max = ", quant_min);
}

}  // namespace detail

namespace {

constexpr const char* kLearnedModule = "torchslim::LearnedFakeQuantize";
constexpr const char* kThresholdModule = "torchslim::TrainedThreshold";

void check_zero_in_grid(const char* module, int64_t quant_min, int64_t quant_max) {
  TORCH_CHECK_VALUE(quant_min <= 0 && quant_max > 0, module,
                    ": the zero point 0 must be in the grid, with points above ", "it, got quant_min ", quant_min,
                    " and quant_max ", quant_max);
}

}  // namespace

// ---- LSQ, LSQ+ ----

LearnedFakeQuantizeImpl::LearnedFakeQuantizeImpl(const LearnedFakeQuantizeOptions& options) : options(options) {
  detail::check_learned_options(kLearnedModule, options.quant_min(), options.quant_max());
  TORCH_CHECK_VALUE(options.quant_max() > 0, kLearnedModule, ": quant_max must be > 0, got ", options.quant_max());
  if (options.symmetric()) {
    check_zero_in_grid(kLearnedModule, options.quant_min(), options.quant_max());
  }
  const auto& rule = options.grad_scale();
  TORCH_CHECK_VALUE(rule == "none" || rule == "numel" || rule == "per_channel" || rule == "features", kLearnedModule,
                    ": grad_scale must be `none`, `numel`, `per_channel` or `features`, got `", rule, "`");
  reset();
}

void LearnedFakeQuantizeImpl::reset() {
  scale = register_parameter("scale", unset());
  zero_point = options.symmetric() ? register_buffer("zero_point", at::zeros_like(unset(), at::kInt))
                                   : register_parameter("zero_point", at::zeros_like(unset()));
  initialized = register_buffer("initialized", at::zeros({1}, at::kByte));
}

void LearnedFakeQuantizeImpl::pretty_print(std::ostream& stream) const {
  print_grid(stream, "LearnedFakeQuantize");
  stream << ", symmetric=" << (options.symmetric() ? "true" : "false") << ", grad_scale=" << options.grad_scale()
         << ")";
}

std::tuple<at::Tensor, at::Tensor> LearnedFakeQuantizeImpl::qparams() const {
  return {positive_scale(scale), zero_point};
}

void LearnedFakeQuantizeImpl::first_values(const at::Tensor& x) {
  if (options.symmetric()) {
    const auto first = initial_scale(x, options.quant_max(), options.axis());
    detail::set_state(scale, first);
    detail::set_state(zero_point, at::zeros_like(first));
  } else {
    const auto [first, offset] = initial_qparams(x, options.quant_min(), options.quant_max(), options.axis());
    detail::set_state(scale, first);
    detail::set_state(zero_point, offset);
  }
}

// ---- PACT ----

PactImpl::PactImpl(const PactOptions& options) : options(options) {
  detail::check_learned_options("torchslim::Pact", options.quant_min(), options.quant_max());
  reset();
}

void PactImpl::reset() {
  alpha = register_parameter("alpha", unset());
  initialized = register_buffer("initialized", at::zeros({1}, at::kByte));
}

void PactImpl::pretty_print(std::ostream& stream) const {
  print_grid(stream, "Pact");
  stream << ")";
}

std::tuple<at::Tensor, at::Tensor> PactImpl::qparams() const {
  const auto scale = pact_scale(alpha, options.quant_min(), options.quant_max());
  return {scale, at::full_like(scale, options.quant_min(), scale.options().dtype(at::kInt).requires_grad(false))};
}

void PactImpl::first_values(const at::Tensor& x) { detail::set_state(alpha, initial_alpha(x, options.axis())); }

// ---- TQT ----

TrainedThresholdImpl::TrainedThresholdImpl(const TrainedThresholdOptions& options) : options(options) {
  detail::check_learned_options(kThresholdModule, options.quant_min(), options.quant_max());
  check_zero_in_grid(kThresholdModule, options.quant_min(), options.quant_max());
  trained_threshold_scale(at::ones({}), options.quant_max());  // refuses what has no power of two
  reset();
}

void TrainedThresholdImpl::reset() {
  log2_threshold = register_parameter("log2_threshold", unset());
  initialized = register_buffer("initialized", at::zeros({1}, at::kByte));
}

void TrainedThresholdImpl::pretty_print(std::ostream& stream) const {
  print_grid(stream, "TrainedThreshold");
  stream << ")";
}

std::tuple<at::Tensor, at::Tensor> TrainedThresholdImpl::qparams() const {
  const auto scale = trained_threshold_scale(log2_threshold, options.quant_max());
  return {scale, at::zeros_like(scale, scale.options().dtype(at::kInt).requires_grad(false))};
}

void TrainedThresholdImpl::first_values(const at::Tensor& x) {
  detail::set_state(log2_threshold, initial_log2_threshold(x, options.axis()));
}

// ---- NNCF's range ----

TrainableRangeImpl::TrainableRangeImpl(const TrainableRangeOptions& options) : options(options) {
  detail::check_learned_options("torchslim::TrainableRange", options.quant_min(), options.quant_max());
  reset();
}

void TrainableRangeImpl::reset() {
  input_low = register_parameter("input_low", at::zeros_like(unset()));
  input_range = register_parameter("input_range", unset());
  initialized = register_buffer("initialized", at::zeros({1}, at::kByte));
}

void TrainableRangeImpl::pretty_print(std::ostream& stream) const {
  print_grid(stream, "TrainableRange");
  stream << ")";
}

std::tuple<at::Tensor, at::Tensor> TrainableRangeImpl::qparams() const {
  return trainable_range_qparams(input_low, input_range, options.quant_min(), options.quant_max());
}

void TrainableRangeImpl::first_values(const at::Tensor& x) {
  const auto [low, range] = initial_range(x, options.axis());
  detail::set_state(input_low, low);
  detail::set_state(input_range, range);
}

}  // namespace torchslim::quant
