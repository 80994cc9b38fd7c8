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

/// Throws if `scale` wants a gradient, which these ops do not have: silence would leave it untrained.
void check_no_grad(const char* op, const at::Tensor& scale);

/// The clipped straight-through gradient of all fake-quantise ops: keeps one bit per element.
/// kOp is the name that a refused second backward gives.
template <const char* const& kOp>
struct ClippedStraightThrough : torch::autograd::Function<ClippedStraightThrough<kOp>> {
  /// `quantize(self)` returns the value and the bits of the elements whose gradient is cut.
  template <typename Quantize>
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& self, const Quantize& quantize) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [value, cut] = quantize(self);
    ctx->save_for_backward({cut});
    if (!is_plain(value)) {
      ctx->saved_data["stride"] = c10::IValue(value.sym_strides());
    }
    return value;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto stride = stride_of(ctx->saved_data, grads[0]);
    at::Tensor gradient;
    {
      at::AutoDispatchBelowADInplaceOrView below_autograd;
      gradient = call_backward(grads[0], ctx->get_saved_variables()[0], stride);
    }
    return {core::once_differentiable(gradient, kOp), at::Tensor()};
  }

 private:
  // Whether the strides follow from the shape: keeping them costs a small tensor more than rounding it.
  static bool is_plain(const at::Tensor& value) {
    return !value.unsafeGetTensorImpl()->has_symbolic_sizes_strides() && value.is_contiguous();
  }

  static c10::SymDimVector stride_of(const ska::flat_hash_map<std::string, c10::IValue>& saved,
                                     const at::Tensor& grad) {
    if (!saved.empty()) {
      const auto stride = saved.at("stride").toSymIntVector();
      return {stride.begin(), stride.end()};
    }
    c10::SymDimVector stride(grad.dim());
    c10::SymInt step = 1;
    for (int64_t dim = grad.dim() - 1; dim >= 0; --dim) {
      stride[dim] = step;
      step = step * grad.sym_size(dim).max(1);
    }
    return stride;
  }
};

/// Runs `plain(self)` below autograd if nobody wants a gradient, else `quantize(self)` with its gradient.
template <const char* const& kOp, typename Plain, typename Quantize>
at::Tensor straight_through(const at::Tensor& self, const Plain& plain, const Quantize& quantize) {
  if (at::GradMode::is_enabled() && self.requires_grad()) {
    return ClippedStraightThrough<kOp>::apply(self, quantize);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return plain(self);
}

}  // namespace torchslim::quant::detail
