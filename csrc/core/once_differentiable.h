// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

#include <string>

namespace torchslim::core {

/// Returns the gradient an autograd function's backward is about to return, so that differentiating it again is refused
/// by name. Without this a gradient that was not made by differentiable ops would silently count as a constant.
///   gradient  with respect to one of the function's tensors
///   op        the name users know, "torchslim::x"
inline at::Tensor once_differentiable(const at::Tensor& gradient, const char* op) {
  if (!at::GradMode::is_enabled() || !gradient.defined()) {
    return gradient;
  }
  at::Tensor result = gradient.detach();
  const auto current = torch::autograd::get_current_node();
  auto refusal = c10::make_intrusive<torch::autograd::Error>(
      std::string(op) + ": the gradient cannot be differentiated again (once-differentiable)",
      current ? torch::autograd::edge_list(current->next_edges()) : torch::autograd::edge_list(1));
  torch::autograd::create_gradient_edge(result, std::move(refusal));
  return result;
}

}  // namespace torchslim::core
