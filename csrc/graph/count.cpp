// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <torchslim/graph/count.h>

#include <numeric>

#include "graph/fake_quantize.h"

namespace torchslim::graph {
namespace {

bool has_weight(const Node& node) { return is_convolution(node.kind) || node.kind == OpKind::kLinear; }

// Each element of the result per image costs one row of the weight; where a convolution is transposed, each of the input.
int64_t macs_of(const Graph& graph, const Node& node) {
  const auto& shape = is_transposed(node.kind) ? graph.nodes[node.inputs[0]].shape : node.shape;
  const int64_t elements = std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>());
  return elements * node.weight.value[0].numel();
}

}  // namespace

std::vector<LayerCount> count_layers(const Graph& graph) {
  const at::NoGradGuard no_grad;
  std::vector<LayerCount> counts;
  for (const Node& node : graph.nodes) {
    if (!has_weight(node)) {
      continue;
    }
    const at::Tensor weight = fake_quantized_weight(node);
    counts.push_back({node.layer, node.weight.name, node.kind, macs_of(graph, node), weight.numel(),
                      weight.numel() - weight.count_nonzero().item<int64_t>()});
  }
  return counts;
}

int64_t count_macs(const Graph& graph) {
  int64_t total = 0;
  for (const Node& node : graph.nodes) {
    if (has_weight(node)) {
      total += macs_of(graph, node);
    }
  }
  return total;
}

}  // namespace torchslim::graph
