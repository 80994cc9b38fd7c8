// SPDX-License-Identifier: BSD-3-Clause
#include "prune/replace_data.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

namespace torchslim::prune::detail {

void replace_data(const at::Tensor& tensor, const at::Tensor& data) {
  if (tensor.grad().defined()) {
    tensor.mutable_grad().reset();
  }
  tensor.set_data(data);
  if (tensor.requires_grad()) {
    // A node from an earlier step, kept alive by a loss that still is, would demand gradients of the old shape.
    using Node = torch::autograd::Node;
    torch::autograd::impl::set_grad_accumulator(tensor, c10::weak_intrusive_ptr<Node>(c10::intrusive_ptr<Node>()));
  }
}

}  // namespace torchslim::prune::detail
