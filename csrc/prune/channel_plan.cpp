// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/Tensor.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/sort.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torchslim/prune/channel_plan.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "prune/layer_names.h"

namespace torchslim::prune {
namespace {

using graph::Graph;
using graph::Node;
using graph::OpKind;

constexpr const char* kCall = "ChannelPruner";

// The module that owns all tensors of `node` under their usual names, if one does; else the plan could not name it.
std::optional<std::string> owner(const Node& node) {
  const auto& named = node.weight.defined() ? node.weight : node.running_mean;
  const std::string suffix = node.weight.defined() ? ".weight" : ".running_mean";
  if (!named.defined() || !named.name.ends_with(suffix)) {
    return std::nullopt;
  }
  auto layer = named.name.substr(0, named.name.size() - suffix.size());
  const auto owns = [&](const graph::NamedTensor& tensor, const char* name) {
    return !tensor.defined() || tensor.name == layer + name;
  };
  const bool all =
      owns(node.bias, ".bias") && owns(node.running_mean, ".running_mean") && owns(node.running_var, ".running_var");
  return all ? std::make_optional(std::move(layer)) : std::nullopt;
}

// How many nodes read each tensor: more than one means a layer that runs twice, or tied tensors.
class TensorUses {
 public:
  explicit TensorUses(const Graph& graph) {
    for (const auto& node : graph.nodes) {
      for (const auto* tensor : tensors(node)) {
        ++uses_[tensor];
      }
    }
  }

  bool are_exclusive(const Node& node) const {
    const auto its = tensors(node);
    return std::all_of(its.begin(), its.end(), [&](const void* tensor) { return uses_.at(tensor) == 1; });
  }

 private:
  static std::vector<const void*> tensors(const Node& node) {
    std::vector<const void*> found;
    for (const auto* named : {&node.weight, &node.bias, &node.running_mean, &node.running_var}) {
      if (named->defined()) {
        found.push_back(named->value.unsafeGetTensorImpl());
      }
    }
    return found;
  }

  std::map<const void*, int> uses_;
};

bool is_depthwise(const Node& node, int64_t channels) {
  return node.window.groups == channels && node.weight.value.size(0) == channels && channels > 1;
}

int64_t pixels(const Node& node) {
  return std::accumulate(node.shape.begin() + 2, node.shape.end(), int64_t{1}, std::multiplies<>());
}

// Follows the channels of one convolution through the graph.
class ChainFinder {
 public:
  ChainFinder(const Graph& graph, const TensorUses& uses) : graph_(graph), uses_(uses) {}

  std::optional<ChannelChain> from(int64_t index) {
    const auto& conv = graph_.nodes[index];
    const auto layer = named_layer(conv);
    if (conv.kind != OpKind::kConv2d || conv.window.groups != 1 || !layer) {
      return std::nullopt;
    }
    chain_ = ChannelChain();
    chain_.layer = *layer;
    chain_.channels = conv.weight.value.size(0);
    return follow(index, 1) ? std::make_optional(chain_) : std::nullopt;
  }

 private:
  std::optional<std::string> named_layer(const Node& node) const {
    return uses_.are_exclusive(node) ? owner(node) : std::nullopt;
  }

  // False if the channels of node `index`, `repeat` values each, must stay.
  bool follow(int64_t index, int64_t repeat) {
    const auto users = graph_.users(index);
    return !users.empty() && index + 1 < static_cast<int64_t>(graph_.nodes.size()) &&
           std::all_of(users.begin(), users.end(), [&](int64_t user) { return pass(index, user, repeat); });
  }

  bool pass(int64_t from, int64_t index, int64_t repeat) {
    const auto& node = graph_.nodes[index];
    switch (node.kind) {
      case OpKind::kRelu:
      case OpKind::kRelu6:
      case OpKind::kMaxPool2d:
      case OpKind::kAvgPool2d:
      case OpKind::kGlobalAvgPool:
        return follow(index, repeat);
      case OpKind::kFakeQuantize:
        return node.grid && !node.grid->axis && follow(index, repeat);
      case OpKind::kFlatten:
        return follow(index, repeat * pixels(graph_.nodes[from]));
      case OpKind::kBatchNorm2d:
        return carry(node, chain_.batch_norms) && follow(index, repeat);
      case OpKind::kConv2d:
        return is_depthwise(node, chain_.channels) ? carry(node, chain_.depthwise) && follow(index, repeat)
                                                   : node.window.groups == 1 && end(node, repeat);
      case OpKind::kLinear:
        // Over the last dimension, which holds the channels only if there is no other.
        return graph_.nodes[from].shape.size() == 2 && end(node, repeat);
      default:
        return false;
    }
  }

  bool carry(const Node& node, std::vector<std::string>& layers) const {
    const auto layer = named_layer(node);
    if (layer) {
      layers.push_back(*layer);
    }
    return layer.has_value();
  }

  bool end(const Node& node, int64_t repeat) {
    const auto layer = named_layer(node);
    if (layer) {
      chain_.consumers.push_back({*layer, repeat, node.kind == OpKind::kLinear});
    }
    return layer.has_value();
  }

  const Graph& graph_;
  const TensorUses& uses_;
  ChannelChain chain_;
};

const Node& node_of(const Graph& graph, const std::string& layer) {
  return *std::find_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return owner(node) == layer; });
}

at::Tensor scores(const Graph& graph, const ChannelChain& chain, ChannelCriterion criterion) {
  if (criterion == ChannelCriterion::kBatchNorm) {
    TORCH_CHECK_VALUE(!chain.batch_norms.empty() && node_of(graph, chain.batch_norms[0]).weight.defined(),
                      "torchslim::", kCall, ": criterion bn needs a batch norm with weights after `", chain.layer,
                      "`; exclude it, or use l1 or l2");
    return node_of(graph, chain.batch_norms[0]).weight.value.abs();
  }
  const auto filters = node_of(graph, chain.layer).weight.value.flatten(1);
  return at::linalg_vector_norm(filters, criterion == ChannelCriterion::kL1 ? 1 : 2, at::IntArrayRef{1});
}

int64_t count_to_keep(int64_t channels, double ratio, int64_t round_to) {
  const auto removed = static_cast<int64_t>(std::nearbyint(static_cast<double>(channels) * ratio));
  const auto kept = std::max<int64_t>(channels - removed, 1);
  return std::min((kept + round_to - 1) / round_to * round_to, channels);
}

// The `count` most important filters, ascending; of equal ones the last.
std::vector<int64_t> most_important(const at::Tensor& scores, int64_t count) {
  const auto order = std::get<1>(at::sort(scores.to(at::kCPU), /*stable=*/true, /*dim=*/0, /*descending=*/false));
  const auto last = order.slice(0, order.numel() - count).contiguous();
  std::vector<int64_t> keep(last.const_data_ptr<int64_t>(), last.const_data_ptr<int64_t>() + count);
  std::sort(keep.begin(), keep.end());
  return keep;
}

void check_options(const ChannelPlanOptions& options) {
  TORCH_CHECK_VALUE(options.ratio >= 0.0 && options.ratio < 1.0, "torchslim::", kCall,
                    ": ratio must be in [0, 1), got ", options.ratio);
  TORCH_CHECK_VALUE(options.round_to >= 1, "torchslim::", kCall, ": round_to must be >= 1, got ", options.round_to);
}

std::vector<int64_t> repeated(const std::vector<int64_t>& keep, int64_t repeat) {
  std::vector<int64_t> indices;
  for (const int64_t channel : keep) {
    for (int64_t i = 0; i < repeat; ++i) {
      indices.push_back(channel * repeat + i);
    }
  }
  return indices;
}

// Returns the entry of `layer`, a new one if there is none yet.
detail::LayerCut& entry(std::vector<detail::LayerCut>& cuts, const std::string& layer, detail::LayerCut::Kind kind) {
  auto found = std::find_if(cuts.begin(), cuts.end(), [&](const auto& cut) { return cut.layer == layer; });
  if (found == cuts.end()) {
    found = cuts.insert(cuts.end(), detail::LayerCut());
    found->layer = layer;
    found->kind = kind;
  }
  TORCH_CHECK_VALUE(found->kind == kind, "torchslim::apply_plan: `", layer, "` is used as ",
                    detail::to_string(found->kind), " and as ", detail::to_string(kind));
  return *found;
}

}  // namespace

std::vector<ChannelChain> find_channel_chains(const Graph& graph) {
  const TensorUses uses(graph);
  ChainFinder finder(graph, uses);
  std::vector<ChannelChain> chains;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (auto chain = finder.from(static_cast<int64_t>(i))) {
      chains.push_back(std::move(*chain));
    }
  }
  return chains;
}

ChannelPlan plan_channels(const Graph& graph, const ChannelPlanOptions& options) {
  check_options(options);
  const c10::NoGradGuard no_grad;
  const auto chains = find_channel_chains(graph);
  std::vector<std::string> names;
  for (const auto& chain : chains) {
    names.push_back(chain.layer);
  }
  const auto selected = detail::select_layers(kCall, names, {}, options.exclude);
  ChannelPlan plan;
  for (const auto& chain : chains) {
    if (std::find(selected.begin(), selected.end(), chain.layer) == selected.end()) {
      continue;
    }
    const auto importance = scores(graph, chain, options.criterion);
    TORCH_CHECK_VALUE(!at::isnan(importance).any().item<bool>(), "torchslim::", kCall, ": `", chain.layer,
                      "` has NaN among its scores; look for the step that diverged");
    const auto count = count_to_keep(chain.channels, options.ratio, options.round_to);
    if (count < chain.channels) {
      plan.cuts.push_back({chain, most_important(importance, count)});
    }
  }
  return plan;
}

ChannelPlan compose(const ChannelPlan& first, const ChannelPlan& second) {
  auto plan = first;
  for (const auto& cut : second.cuts) {
    const auto same = [&](const ChannelCut& other) { return other.chain.layer == cut.chain.layer; };
    const auto found = std::find_if(plan.cuts.begin(), plan.cuts.end(), same);
    if (found == plan.cuts.end()) {
      plan.cuts.push_back(cut);
      continue;
    }
    TORCH_CHECK_VALUE(cut.chain.channels == static_cast<int64_t>(found->keep.size()), "torchslim::compose: `",
                      cut.chain.layer, "` has ", found->keep.size(), " filters left, but the second plan was made for ",
                      cut.chain.channels);
    std::vector<int64_t> keep;
    for (const int64_t channel : cut.keep) {
      keep.push_back(found->keep[channel]);
    }
    found->keep = std::move(keep);
  }
  return plan;
}

std::vector<detail::LayerCut> detail::cuts_by_layer(const ChannelPlan& plan) {
  using Kind = LayerCut::Kind;
  std::vector<LayerCut> cuts;
  const auto cut_outputs = [&](const std::string& layer, Kind kind, const ChannelCut& cut) {
    auto& target = entry(cuts, layer, kind);
    TORCH_CHECK_VALUE(target.keep_outputs.empty(), "torchslim::apply_plan: the plan cuts the outputs of `", layer,
                      "` twice");
    target.outputs = cut.chain.channels;
    target.keep_outputs = cut.keep;
  };
  for (const auto& cut : plan.cuts) {
    cut_outputs(cut.chain.layer, Kind::kConv2d, cut);
    for (const auto& layer : cut.chain.batch_norms) {
      cut_outputs(layer, Kind::kBatchNorm2d, cut);
    }
    for (const auto& layer : cut.chain.depthwise) {
      cut_outputs(layer, Kind::kDepthwise, cut);
    }
    for (const auto& consumer : cut.chain.consumers) {
      auto& target = entry(cuts, consumer.layer, consumer.linear ? Kind::kLinear : Kind::kConv2d);
      TORCH_CHECK_VALUE(target.keep_inputs.empty(), "torchslim::apply_plan: the plan cuts the inputs of `",
                        consumer.layer, "` twice");
      target.inputs = cut.chain.channels * consumer.repeat;
      target.keep_inputs = repeated(cut.keep, consumer.repeat);
    }
  }
  return cuts;
}

const char* detail::to_string(LayerCut::Kind kind) {
  switch (kind) {
    case LayerCut::Kind::kConv2d:
      return "conv2d";
    case LayerCut::Kind::kDepthwise:
      return "depthwise conv2d";
    case LayerCut::Kind::kLinear:
      return "linear";
    case LayerCut::Kind::kBatchNorm2d:
      return "batch_norm2d";
  }
  return "";
}

}  // namespace torchslim::prune
