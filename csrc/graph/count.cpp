// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <torchslim/graph/count.h>

#include <numeric>

#include "graph/fake_quantize.h"

namespace torchslim::graph {
namespace {

// Each element of the result per image costs one row of the weight.
int64_t macs_of(const Node& node) {
  const int64_t results = std::accumulate(node.shape.begin() + 1, node.shape.end(), int64_t{1}, std::multiplies<>());
  return results * node.weight.value[0].numel();
}

}  // namespace

std::vector<LayerCount> count_layers(const Graph& graph) {
  const at::NoGradGuard no_grad;
  std::vector<LayerCount> counts;
  for (const Node& node : graph.nodes) {
    if (node.kind != OpKind::kConv2d && node.kind != OpKind::kLinear) {
      continue;
    }
    const at::Tensor weight = fake_quantized(node.weight.value, node.weight_grid);
    counts.push_back({node.layer, node.weight.name, node.kind, macs_of(node), weight.numel(),
                      weight.numel() - weight.count_nonzero().item<int64_t>()});
  }
  return counts;
}

int64_t count_macs(const Graph& graph) {
  int64_t total = 0;
  for (const Node& node : graph.nodes) {
    if (node.kind == OpKind::kConv2d || node.kind == OpKind::kLinear) {
      total += macs_of(node);
    }
  }
  return total;
}

}  // namespace torchslim::graph
