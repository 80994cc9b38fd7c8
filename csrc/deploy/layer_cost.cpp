// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/layer_cost.h"

namespace torchslim::deploy {
namespace {

int64_t elements_in(const at::Tensor& tensor) { return tensor.defined() ? tensor.numel() : 0; }

}  // namespace

int64_t float_parameters(const graph::Node& node) {
  int64_t count = elements_in(node.weight.value) + elements_in(node.bias.value) + elements_in(node.running_mean.value) +
                  elements_in(node.running_var.value);
  if (node.call) {
    for (const c10::IValue& argument : node.call->arguments) {
      count += argument.isTensor() ? elements_in(argument.toTensor()) : 0;
    }
  }
  return count;
}

int64_t bytes_of(const IntegerNode& node, int64_t bytes_per_channel) {
  if (node.codes.defined()) {
    return node.codes.numel() + bytes_per_channel * node.weight_scale.numel();
  }
  if (node.gives_floats() && node.float_node != nullptr) {
    return 4 * float_parameters(*node.float_node);
  }
  return elements_in(node.table);
}

}  // namespace torchslim::deploy
