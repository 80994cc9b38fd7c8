// SPDX-License-Identifier: BSD-3-Clause
// From what a learned quantiser trains to its grid: ATen's ops on a few numbers.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torchslim/quant/learned_fake_quantize.h>

#include <cmath>
#include <type_traits>

#include "quant/learned_fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr double kSmallestScale = 1.0 / (1 << 23);  // float32's epsilon, as torch.ao's learned quantiser

void check_two_points(const char* op, int64_t quant_min, int64_t quant_max) {
  detail::check_range(op, quant_min, quant_max);
  TORCH_CHECK_VALUE(quant_min < quant_max, op, ": the grid has one point: quant_min = quant_max = ", quant_min);
}

void check_raw(const char* op, const char* name, const at::Tensor& raw) {
  TORCH_CHECK_TYPE(at::isFloatingType(raw.scalar_type()), op, ": ", name, " must be a floating-point tensor, got ",
                   raw.scalar_type());
}

// What makes a scale of a raw number, and the gradient of that, whose own gradient is free.
struct Positive {
  static at::Tensor value(const at::Tensor& raw) { return raw.abs().clamp_min_(kSmallestScale); }
  static at::Tensor gradient(const at::Tensor& dy, const at::Tensor& raw, const at::Tensor&) {
    return at::where(raw < 0, -dy, dy);
  }
};

struct PowerOfTwo {
  static at::Tensor value(const at::Tensor& log2) { return log2.ceil().exp2_(); }
  static at::Tensor gradient(const at::Tensor& dy, const at::Tensor&, const at::Tensor& value) {
    return dy * value * std::log(2.0);
  }
};

// One node in place of a chain of ATen's, each of which costs more than its numbers.
template <typename Rule>
struct ScaleFunction : torch::autograd::Function<ScaleFunction<Rule>> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& raw) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto value = Rule::value(raw);
    ctx->save_for_backward({raw, value});
    return value;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {Rule::gradient(grads[0], saved[0], saved[1])};
  }
};

template <typename Rule>
at::Tensor scale_of(const at::Tensor& raw) {
  const bool wanted = at::GradMode::is_enabled() && raw.requires_grad();
  return wanted ? ScaleFunction<Rule>::apply(raw) : Rule::value(raw);
}

at::Tensor positive_scale_op(const at::Tensor& raw) {
  check_raw("torchslim::positive_scale", "raw", raw);
  return scale_of<Positive>(raw);
}

at::Tensor pact_scale_op(const at::Tensor& alpha, int64_t quant_min, int64_t quant_max) {
  constexpr const char* kOp = "torchslim::pact_scale";
  check_two_points(kOp, quant_min, quant_max);
  check_raw(kOp, "alpha", alpha);
  return scale_of<Positive>(alpha) / static_cast<double>(quant_max - quant_min);
}

at::Tensor trained_threshold_scale_op(const at::Tensor& log2_threshold, int64_t quant_max) {
  constexpr const char* kOp = "torchslim::trained_threshold_scale";
  check_raw(kOp, "log2_threshold", log2_threshold);
  const int64_t codes = quant_max + 1;
  TORCH_CHECK_VALUE(codes > 0 && (codes & (codes - 1)) == 0, kOp,
                    ": quant_max + 1 must be a power of two, for a scale that is one, got quant_max ", quant_max);
  return scale_of<PowerOfTwo>(log2_threshold) / static_cast<double>(codes);
}

std::tuple<at::Tensor, at::Tensor> trainable_range_qparams_op(const at::Tensor& input_low,
                                                              const at::Tensor& input_range, int64_t quant_min,
                                                              int64_t quant_max) {
  constexpr const char* kOp = "torchslim::trainable_range_qparams";
  check_two_points(kOp, quant_min, quant_max);
  check_raw(kOp, "input_low", input_low);
  check_raw(kOp, "input_range", input_range);
  TORCH_CHECK_VALUE(input_low.sym_sizes() == input_range.sym_sizes(), kOp,
                    ": input_low and input_range must have one shape, got ", input_low.sym_sizes(), " and ",
                    input_range.sym_sizes());
  detail::check_device(kOp, "input_range", input_range, input_low.device());
  const auto scale = scale_of<Positive>(input_range) / static_cast<double>(quant_max - quant_min);
  return {scale, static_cast<double>(quant_min) - input_low / scale};
}

template <typename Function, typename... Arguments>
auto call_op(const char* name, Function, const Arguments&... arguments) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<std::remove_pointer_t<Function>>();
  return op.call(arguments...);
}

}  // namespace

at::Tensor positive_scale(const at::Tensor& raw) {
  return call_op("torchslim::positive_scale", &positive_scale_op, raw);
}

at::Tensor pact_scale(const at::Tensor& alpha, int64_t quant_min, int64_t quant_max) {
  return call_op("torchslim::pact_scale", &pact_scale_op, alpha, quant_min, quant_max);
}

at::Tensor trained_threshold_scale(const at::Tensor& log2_threshold, int64_t quant_max) {
  return call_op("torchslim::trained_threshold_scale", &trained_threshold_scale_op, log2_threshold, quant_max);
}

std::tuple<at::Tensor, at::Tensor> trainable_range_qparams(const at::Tensor& input_low, const at::Tensor& input_range,
                                                           int64_t quant_min, int64_t quant_max) {
  return call_op("torchslim::trainable_range_qparams", &trainable_range_qparams_op, input_low, input_range, quant_min,
                 quant_max);
}

at::Tensor rounded_zero_point(const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  constexpr const char* kOp = "torchslim::rounded_zero_point";
  detail::check_range(kOp, quant_min, quant_max);
  const auto numbers = zero_point.detach().to(at::kFloat);
  TORCH_CHECK_VALUE(numbers.isfinite().all().item<bool>(), kOp, ": zero_point must be finite, got ", zero_point);
  return detail::round_zero_point(numbers, quant_min, quant_max).to(at::kInt);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def("positive_scale(Tensor raw) -> Tensor", tags);
  m.def("pact_scale(Tensor alpha, int quant_min, int quant_max) -> Tensor", tags);
  m.def("trained_threshold_scale(Tensor log2_threshold, int quant_max) -> Tensor", tags);
  m.def(
      "trainable_range_qparams(Tensor input_low, Tensor input_range, int quant_min, int quant_max) -> (Tensor, Tensor)",
      tags);
}

TORCH_LIBRARY_IMPL(torchslim, CompositeImplicitAutograd, m) {
  m.impl("positive_scale", TORCH_FN(positive_scale_op));
  m.impl("pact_scale", TORCH_FN(pact_scale_op));
  m.impl("trained_threshold_scale", TORCH_FN(trained_threshold_scale_op));
  m.impl("trainable_range_qparams", TORCH_FN(trainable_range_qparams_op));
}

}  // namespace torchslim::quant
