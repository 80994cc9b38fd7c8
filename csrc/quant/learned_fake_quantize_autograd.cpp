// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torchslim/quant/learned_fake_quantize.h>

#include <string>

#include "core/once_differentiable.h"
#include "quant/learned_fake_quantize.h"

namespace torchslim::quant {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LearnedFakeQuantizeFunction : torch::autograd::Function<LearnedFakeQuantizeFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& self, const at::Tensor& scale,
                            const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                            std::optional<int64_t> axis, const std::string& grad_scale, const std::string& gradient) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({self, scale, zero_point});
    ctx->saved_data["quant_min"] = quant_min;
    ctx->saved_data["quant_max"] = quant_max;
    ctx->saved_data["axis"] = axis;
    ctx->saved_data["grad_scale"] = grad_scale;
    ctx->saved_data["gradient"] = gradient;
    return learned_fake_quantize(self, scale, zero_point, quant_min, quant_max, axis, grad_scale, gradient);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const detail::Wanted wanted{ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2)};
    const auto grad_scale = ctx->saved_data["grad_scale"].toStringRef();
    const auto gradient = ctx->saved_data["gradient"].toStringRef();
    detail::LearnedGradients all;
    {
      at::AutoDispatchBelowADInplaceOrView below_autograd;
      all = detail::call_learned_backward(
          grads[0], saved[0],
          {saved[1], saved[2], ctx->saved_data["quant_min"].toInt(), ctx->saved_data["quant_max"].toInt(),
           ctx->saved_data["axis"].toOptional<int64_t>(), grad_scale, gradient},
          wanted);
    }
    const auto once = [](const at::Tensor& gradient, bool is_wanted) {
      return core::once_differentiable(is_wanted ? gradient : at::Tensor(), detail::kLearnedOp);
    };
    variable_list result(8);
    result[0] = once(std::get<0>(all), wanted[0]);
    result[1] = once(std::get<1>(all), wanted[1]);
    result[2] = once(std::get<2>(all), wanted[2]);
    return result;
  }
};

at::Tensor learned_fake_quantize_autograd(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                                          int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                                          std::string_view grad_scale, std::string_view gradient) {
  if (at::GradMode::is_enabled() && (self.requires_grad() || scale.requires_grad() || zero_point.requires_grad())) {
    return LearnedFakeQuantizeFunction::apply(self, scale, zero_point, quant_min, quant_max, axis,
                                              std::string(grad_scale), std::string(gradient));
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return learned_fake_quantize(self, scale, zero_point, quant_min, quant_max, axis, grad_scale, gradient);
}

}  // namespace

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) {
  m.impl("learned_fake_quantize", TORCH_FN(learned_fake_quantize_autograd));
}

// Under autocast the op keeps its input's type: it computes in float32 anyway.
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  m.impl("learned_fake_quantize", torch::CppFunction::makeFallthrough());
}

}  // namespace torchslim::quant
