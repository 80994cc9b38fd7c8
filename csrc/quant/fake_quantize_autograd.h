// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <tuple>

#include "core/once_differentiable.h"

namespace torchslim::quant::detail {

/// Calls torchslim::_fake_quantize_backward.
at::Tensor call_backward(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride);

/// The clipped straight-through gradient of all fake-quantise ops: keeps one bit per element.
struct ClippedStraightThrough : torch::autograd::Function<ClippedStraightThrough> {
  /// `quantize(self)` returns the value and the bits of the elements whose gradient is cut.
  template <typename Quantize>
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& self, const Quantize& quantize) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [value, cut] = quantize(self);
    ctx->save_for_backward({cut});
    ctx->saved_data["stride"] = c10::IValue(value.sym_strides());
    return value;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto stride = ctx->saved_data["stride"].toSymIntVector();
    at::Tensor gradient;
    {
      at::AutoDispatchBelowADInplaceOrView below_autograd;
      gradient = call_backward(grads[0], ctx->get_saved_variables()[0], stride);
    }
    return {core::once_differentiable(gradient, "torchslim::fake_quantize"), at::Tensor()};
  }
};

/// Runs `plain(self)` below autograd if nobody wants a gradient, else `quantize(self)` with its gradient.
template <typename Plain, typename Quantize>
at::Tensor straight_through(const at::Tensor& self, const Plain& plain, const Quantize& quantize) {
  if (at::GradMode::is_enabled() && self.requires_grad()) {
    return ClippedStraightThrough::apply(self, quantize);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return plain(self);
}

}  // namespace torchslim::quant::detail
