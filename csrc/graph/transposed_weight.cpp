// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/graph/transposed_weight.h>

namespace torchslim::graph {

at::Tensor transposed_weight(const at::Tensor& weight, int64_t groups) {
  TORCH_CHECK_VALUE(weight.dim() >= 2 && groups >= 1 && weight.size(0) % groups == 0,
                    "torchslim::graph::transposed_weight: expected a weight (channels, channels / groups, ...) of ",
                    groups, " groups, got shape ", weight.sizes());
  return weight.unflatten(0, {groups, weight.size(0) / groups}).transpose(1, 2).flatten(0, 1);
}

at::Tensor weight_by_outputs(const Node& node) {
  return is_transposed(node.kind) ? transposed_weight(node.weight.value, node.window.groups) : node.weight.value;
}

}  // namespace torchslim::graph
