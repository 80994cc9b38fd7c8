// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <torchslim/graph/capture.h>
#include <torchslim/quant/equalize.h>
#include <torchslim/quant/layers.h>

#include <map>
#include <set>

#include "quant/weight_grid.h"

namespace torchslim::quant {
namespace {

using graph::Node;
using graph::OpKind;

constexpr const char* kEqualize = "torchslim::quant::equalize";
constexpr int kMostRounds = 100;
constexpr double kStill = 1e-4;  // a round that moves no channel by more is the last

bool has_weight(const Node& node) { return node.kind == OpKind::kConv2d || node.kind == OpKind::kLinear; }

// A pair of layers by their nodes, and what lies between.
struct Pair {
  int64_t first, second = -1;
  int64_t norm = -1;    // behind the first layer
  int64_t repeats = 1;  // inputs of the second for each channel: behind a flatten, one for each pixel
  std::string reason;
  at::Tensor scale;  // float64 (C)
};

// Finds out what follows a layer.
class Follower {
 public:
  Follower(const graph::Graph& graph, const std::set<std::string>& shared) : graph_(graph), shared_(shared) {}

  Pair after(int64_t first) {
    pair_ = {first, -1, -1, 1, "", {}};
    int64_t at = first;
    while (pair_.second < 0 && pair_.reason.empty()) {
      const auto users = graph_.users(at);
      if (users.size() != 1) {
        pair_.reason = users.empty() ? "it is the network's result" : "more than one layer reads its result";
        break;
      }
      at = users.front();
      pass(at);
    }
    return pair_;
  }

 private:
  void pass(int64_t at) {
    const Node& node = graph_.nodes[at];
    const Node& first = graph_.nodes[pair_.first];
    switch (node.kind) {
      case OpKind::kBatchNorm2d:
        if (graph_.nodes[at].inputs.front() != pair_.first) {
          pair_.reason = "batch norm `" + node.layer + "` does not follow the layer directly";
        } else if (node.weight.name.empty()) {
          pair_.reason = "batch norm `" + node.layer + "` has no gamma to scale";
        }
        pair_.norm = at;
        return;
      case OpKind::kRelu:
      case OpKind::kMaxPool2d:
      case OpKind::kAvgPool2d:
      case OpKind::kGlobalAvgPool:
        return;
      case OpKind::kFlatten:
        if (first.kind == OpKind::kLinear && graph_.nodes[node.inputs.front()].shape.size() != 2) {
          pair_.reason = "a flatten mixes its features with other dimensions";
        }
        pair_.repeats = node.shape.back() / channels();
        return;
      case OpKind::kConv2d:
      case OpKind::kLinear:
        if (shared_.contains(first.weight.name) || shared_.contains(node.weight.name)) {
          pair_.reason = "a weight is used by several layers";
        } else if (node.kind == OpKind::kLinear && node.weight.value.size(1) != channels() * pair_.repeats) {
          pair_.reason = "`" + node.layer + "` does not read its channels";
        } else {
          pair_.second = at;
        }
        return;
      case OpKind::kAten:
        // These too commute with factors > 0.
        if (node.call->op != "aten::prelu" && node.call->op != "aten::leaky_relu") {
          pair_.reason = node.call->op.substr(node.call->op.find("::") + 2) + " reads its result";
        }
        return;
      case OpKind::kRelu6:
        pair_.reason = "a ReLU6 follows, which factors would move; replace_relu6 makes it a ReLU";
        return;
      case OpKind::kAdd:
        pair_.reason = "a residual addition reads its result";
        return;
      default:
        pair_.reason = std::string(graph::to_string(node.kind)) + " reads its result";
    }
  }

  int64_t channels() const { return graph_.nodes[pair_.first].weight.value.size(0); }

  const graph::Graph& graph_;
  const std::set<std::string>& shared_;
  Pair pair_{};
};

std::set<std::string> shared_weights(const graph::Graph& graph) {
  std::set<std::string> seen, twice;
  for (const Node& node : graph.nodes) {
    if (has_weight(node) && !seen.insert(node.weight.name).second) {
      twice.insert(node.weight.name);
    }
  }
  return twice;
}

void check_float(const graph::Graph& graph) {
  for (const Node& node : graph.nodes) {
    TORCH_CHECK_VALUE(node.kind != OpKind::kFakeQuantize && !node.weight_grid, kEqualize, ": layer `", node.layer,
                      "` is quantised; equalise the float network, then prepare it");
  }
}

// The largest |w| from each input channel of a group to each output channel, with the batch norm in it, float64
// (groups, O / groups, I / groups).
class Ranges {
 public:
  Ranges(const graph::Graph& graph, const Node& node, const Node* norm) : groups_(node.window.groups) {
    auto largest = node.weight.value.to(at::kDouble).abs();
    largest = largest.dim() > 2 ? largest.flatten(2).amax(2) : largest;
    if (norm != nullptr) {
      const auto factor =
          norm->weight.value.to(at::kDouble) / (norm->running_var.value.to(at::kDouble) + norm->eps).sqrt();
      largest = largest * factor.abs().unsqueeze(1);
    }
    largest_ = largest.reshape({groups_, -1, largest.size(1)});
  }

  at::Tensor of_outputs() const { return largest_.amax(2).flatten(); }
  at::Tensor of_inputs() const { return largest_.amax(1).flatten(); }
  void scale_outputs(const at::Tensor& by) { largest_ = largest_ * by.view({groups_, -1, 1}); }
  void scale_inputs(const at::Tensor& by) { largest_ = largest_ * by.view({groups_, 1, -1}); }

 private:
  int64_t groups_;
  at::Tensor largest_;
};

// Finds the scales of all pairs.
void find_scales(const graph::Graph& graph, std::vector<Pair>& pairs) {
  std::map<int64_t, Ranges> ranges;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (has_weight(graph.nodes[i])) {
      const auto users = graph.users(static_cast<int64_t>(i));
      const Node* norm = users.size() == 1 ? &graph.nodes[users.front()] : nullptr;
      const bool folds = norm != nullptr && norm->kind == OpKind::kBatchNorm2d;
      ranges.emplace(static_cast<int64_t>(i), Ranges(graph, graph.nodes[i], folds ? norm : nullptr));
    }
  }
  for (Pair& pair : pairs) {
    pair.scale = at::ones({graph.nodes[pair.first].weight.value.size(0)}, at::kDouble);
  }
  bool moved = true;
  for (int round = 0; moved && round < kMostRounds; ++round) {
    moved = false;
    for (Pair& pair : pairs) {
      Ranges& first = ranges.at(pair.first);
      Ranges& second = ranges.at(pair.second);
      const auto before = first.of_outputs();
      const auto after = second.of_inputs().view({-1, pair.repeats}).amax(1);
      const auto scale = at::where((before > 0) & (after > 0), (before / after).sqrt(), at::ones_like(before));
      first.scale_outputs(scale.reciprocal());
      second.scale_inputs(scale.repeat_interleave(pair.repeats));
      pair.scale *= scale;
      moved = moved || (scale.log().abs() > kStill).any().item<bool>();
    }
  }
}

void multiply(const graph::NamedTensor& tensor, const at::Tensor& by) {
  if (tensor.defined()) {
    at::Tensor(tensor.value).copy_(tensor.value.to(at::kDouble) * by);
  }
}

void apply(const graph::Graph& graph, const Pair& pair) {
  const Node& first = graph.nodes[pair.first];
  const Node& second = graph.nodes[pair.second];
  const auto down = pair.scale.reciprocal();
  if (pair.norm >= 0) {
    multiply(graph.nodes[pair.norm].weight, down);
    multiply(graph.nodes[pair.norm].bias, down);
  } else {
    multiply(first.weight, detail::over_channels(down, first.weight.value.dim()));
    multiply(first.bias, down);
  }
  const auto& weight = second.weight.value;
  const int64_t groups = second.window.groups;
  auto up = pair.scale.repeat_interleave(pair.repeats).view({groups, 1, -1});
  up = up.expand({groups, weight.size(0) / groups, -1}).reshape({weight.size(0), weight.size(1)});
  while (up.dim() < weight.dim()) {
    up = up.unsqueeze(-1);
  }
  multiply(second.weight, up);
}

}  // namespace

std::vector<EqualizedPair> equalize(const graph::Graph& graph) {
  const at::NoGradGuard no_grad;
  check_float(graph);
  const auto shared = shared_weights(graph);
  std::vector<Pair> found, pairs;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (has_weight(graph.nodes[i])) {
      found.push_back(Follower(graph, shared).after(static_cast<int64_t>(i)));
    }
  }
  for (const Pair& pair : found) {
    if (pair.reason.empty()) {
      pairs.push_back(pair);
    }
  }
  find_scales(graph, pairs);
  std::vector<EqualizedPair> result;
  size_t next = 0;
  for (const Pair& pair : found) {
    EqualizedPair entry{graph.nodes[pair.first].layer, "", {}, pair.reason};
    if (pair.reason.empty()) {
      apply(graph, pairs[next]);
      entry.second = graph.nodes[pair.second].layer;
      entry.scale = pairs[next++].scale.to(at::kFloat);
    }
    result.push_back(std::move(entry));
  }
  return result;
}

std::vector<EqualizedPair> equalize(const RunnableModule& model, const at::Tensor& example, bool replace_relu6) {
  const auto capture = [&] { return graph::capture(model.module, model.forward, example); };
  auto graph = capture();
  check_float(graph);
  if (replace_relu6) {
    model.module.apply([](torch::nn::Module& child) {
      if (auto* layer = dynamic_cast<QuantLayer*>(&child)) {
        layer->replace_relu6();
      }
    });
    graph = capture();
  }
  return equalize(graph);
}

}  // namespace torchslim::quant
