// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/layer_cost.h"

namespace torchslim::deploy {
namespace {

int64_t elements_in(const at::Tensor& tensor) { return tensor.defined() ? tensor.numel() : 0; }

int64_t bytes_of(const IntegerNode& node, int64_t bytes_per_channel) {
  if (node.codes.defined()) {
    return node.codes.numel() + bytes_per_channel * node.weight_scale.numel();
  }
  if (node.gives_floats() && node.float_node != nullptr) {
    return 4 * float_parameters(*node.float_node);
  }
  return elements_in(node.table);
}

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

int64_t ptl_bytes(const IntegerNode& node) {
  constexpr int64_t kPacked = 12;     // a float64 scale and a float32 bias
  constexpr int64_t kTransposed = 8;  // an int32 bias and a float32 factor: computed in float
  return bytes_of(node, is_transposed(node.op) ? kTransposed : kPacked);
}

int64_t pte_bytes(const IntegerNode& node) {
  constexpr int64_t kPerChannel = 8;  // a float32 scale and an int32 bias
  return bytes_of(node, kPerChannel);
}

}  // namespace torchslim::deploy
