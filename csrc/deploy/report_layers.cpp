// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/deploy/report_layers.h>
#include <torchslim/graph/count.h>
#include <torchslim/graph/interpret.h>

#include <algorithm>

#include "deploy/layer_cost.h"
#include "deploy/target_profile.h"

namespace torchslim::deploy {
namespace {

constexpr int64_t kImagesAtOnce = 8;  // the results of all nodes are held at once

bool has_counted_weight(const IntegerNode& node) {
  return node.codes.defined() ||
         (node.gives_floats() && node.float_node != nullptr &&
          (graph::is_convolution(node.float_node->kind) || node.float_node->kind == graph::OpKind::kLinear));
}

int64_t bits_of(const at::Tensor& codes) {
  const int64_t largest = codes.to(at::kInt).abs().max().item<int64_t>();
  int64_t bits = 2;
  while ((int64_t{1} << (bits - 1)) - 1 < largest) {
    ++bits;
  }
  return bits;
}

LayerReport row_of(const IntegerNode& node) {
  LayerReport row;
  row.layer = node.layer;
  row.op = to_string(node.op);
  row.arithmetic = to_string(arithmetic_of(node, target_profile("qnnpack")));
  if (node.codes.defined()) {
    row.parameters = node.codes.numel() + (node.bias.defined() ? node.bias.numel() : 0);
    row.weight_bits = bits_of(node.codes);
  } else if (node.gives_floats() && node.float_node != nullptr) {
    row.parameters = float_parameters(*node.float_node);
    row.weight_bits = row.parameters > 0 ? 32 : 0;
  }
  row.bytes = ptl_bytes(node);
  return row;
}

// The same network with nothing rounded.
graph::Graph without_grids(graph::Graph graph) {
  for (graph::Node& node : graph.nodes) {
    node.grid.reset();
    node.weight_grid.reset();
  }
  return graph;
}

std::vector<at::Tensor> run_float_nodes(const graph::Graph& graph, const at::Tensor& images) {
  std::vector<at::Tensor> values{images};
  for (const auto i : c10::irange(size_t{1}, graph.nodes.size())) {
    std::vector<at::Tensor> inputs;
    for (const int64_t input : graph.nodes[i].inputs) {
      inputs.push_back(values[input]);
    }
    values.push_back(graph::run_node(graph.nodes[i], inputs, images.size(0)));
  }
  return values;
}

// Adds the distances of one batch; `mean_steps` holds their sum until all are in.
void add_distances(LayerReport& row, const IntegerNode& node, const at::Tensor& codes, const at::Tensor& floats) {
  const double scale = node.scale;
  const at::Tensor steps = codes.to(at::kDouble).sub_(node.zero_point);
  const at::Tensor away = floats.to(at::kDouble).div_(scale).sub_(steps.reshape(floats.sizes())).abs_().contiguous();
  const double* distance = away.const_data_ptr<double>();
  row.steps.resize(kStepBins.size() + 1);
  for (const auto i : c10::irange(away.numel())) {
    // Half a step away is where rounding to nearest may be.
    const auto* bin = std::find_if(kStepBins.begin(), kStepBins.end(),
                                   [&](int64_t end) { return distance[i] <= static_cast<double>(end) + 0.5; });
    ++row.steps[bin - kStepBins.begin()];
    row.mean_steps += distance[i];
    row.max_steps = std::max(row.max_steps, distance[i]);
  }
}

}  // namespace

std::vector<LayerReport> report_layers(const graph::Graph& graph, const at::Tensor& images) {
  TORCH_CHECK_VALUE(images.dim() > 0 && images.size(0) > 0, "torchslim::report_layers: there are no images, got shape ",
                    images.sizes());
  const at::NoGradGuard no_grad;
  const IntegerGraph integers = lower(graph);
  const graph::Graph plain = without_grids(graph);
  const std::vector<graph::LayerCount> counts = graph::count_layers(graph);
  std::vector<LayerReport> rows;
  size_t counted = 0;
  for (const IntegerNode& node : integers.nodes) {
    rows.push_back(row_of(node));
    if (has_counted_weight(node)) {  // lower keeps the order of layers
      rows.back().macs = counts.at(counted++).macs;
    }
  }
  for (int64_t begin = 0; begin < images.size(0); begin += kImagesAtOnce) {
    const at::Tensor part = images.narrow(0, begin, std::min(kImagesAtOnce, images.size(0) - begin));
    const std::vector<at::Tensor> codes = run_integer_nodes(integers, part);
    const std::vector<at::Tensor> floats = run_float_nodes(plain, part);
    for (const auto i : c10::irange(rows.size())) {
      const IntegerNode& node = integers.nodes[i];
      if (!node.gives_floats() && node.graph_node >= 0) {
        add_distances(rows[i], node, codes[i], floats[node.graph_node]);
      }
    }
  }
  for (LayerReport& row : rows) {
    int64_t elements = 0;
    for (const int64_t count : row.steps) {
      elements += count;
    }
    row.mean_steps /= static_cast<double>(std::max(elements, int64_t{1}));
  }
  return rows;
}

}  // namespace torchslim::deploy
