// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <string>
#include <tuple>

#include "core/once_differentiable.h"

namespace torchslim::quant::detail {

/// Calls torchslim::_fake_quantize_backward.
at::Tensor call_backward(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride);

/// Throws if `scale` wants a gradient, which these ops do not have: silence would leave it untrained.
void check_no_grad(const char* op, const at::Tensor& scale);

/// The clipped straight-through gradient of all fake-quantise ops: keeps one bit per element. A node of its own and no
/// torch::autograd::Function, which costs more than rounding a small tensor.
class ClippedStraightThrough : public torch::autograd::Node {
 public:
  /// `op` is the name that a refused second backward gives.
  explicit ClippedStraightThrough(const char* op) : op_(op) {}

  /// Keeps the bits of the elements whose gradient is cut, and makes this the history of `value`.
  void attach(const at::Tensor& value, const at::Tensor& cut);

  std::string name() const override { return op_; }
  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override;
  void release_variables() override { cut_.reset_data(); }

 private:
  const char* op_;
  torch::autograd::SavedVariable cut_;
  bool follows_shape_ = true;  // whether the strides follow from the shape: keeping them costs a small tensor much
  c10::SymDimVector stride_;
};

/// Returns a node for the gradient of `self`, which wants one. Throws where forward-mode derivatives are wanted too.
c10::intrusive_ptr<ClippedStraightThrough> clipped_straight_through(const char* op, const at::Tensor& self);

/// `quantize(self)` returns the value and the bits of the elements whose gradient is cut; returns the value with its gradient.
template <typename Quantize>
at::Tensor with_cut(const char* op, const at::Tensor& self, const Quantize& quantize) {
  auto node = clipped_straight_through(op, self);
  at::Tensor value, cut;
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    std::tie(value, cut) = quantize(self);
  }
  node->attach(value, cut);
  return value;
}

/// Runs `plain(self)` below autograd if nobody wants a gradient, else `quantize(self)` with its gradient.
template <typename Plain, typename Quantize>
at::Tensor straight_through(const char* op, const at::Tensor& self, const Plain& plain, const Quantize& quantize) {
  if (at::GradMode::is_enabled() && self.requires_grad()) {
    return with_cut(op, self, quantize);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return plain(self);
}

}  // namespace torchslim::quant::detail
