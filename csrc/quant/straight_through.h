// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/once_differentiable.h"
#include "quant/fake_quantize_autograd.h"

// Straight-through gradients of ops that name themselves: `kOp` is a `constexpr const char*`.
namespace torchslim::quant::detail {

/// Gradient rule `passthrough`: 1 everywhere, and nothing is kept.
template <const char* const& kOp>
struct Passthrough : torch::autograd::Function<Passthrough<kOp>> {
  template <typename Quantize>
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& self, const Quantize& quantize) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return quantize(self);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list& grads) {
    return {core::once_differentiable(grads[0], kOp), at::Tensor()};
  }
};

/// Runs `plain(self)` below autograd if nobody wants a gradient or none is cut, else `quantize(self)` with its bits.
template <const char* const& kOp, typename Plain, typename Quantize>
at::Tensor with_gradient(const at::Tensor& self, bool clipped, const Plain& plain, const Quantize& quantize) {
  if (!at::GradMode::is_enabled() || !self.requires_grad()) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return plain(self);
  }
  return clipped ? with_cut(kOp, self, quantize) : Passthrough<kOp>::apply(self, plain);
}

/// Throws if `tensor`, the argument `name`, wants a gradient: silence would leave it untrained.
inline void check_no_gradient(const char* op, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(!(at::GradMode::is_enabled() && tensor.requires_grad()), op, ": ", name,
                    " requires grad, but the straight-through gradient has none for it; detach it");
}

}  // namespace torchslim::quant::detail
