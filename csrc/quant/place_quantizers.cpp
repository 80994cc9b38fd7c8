// SPDX-License-Identifier: BSD-3-Clause
#include "quant/place_quantizers.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <c10/util/irange.h>
#include <torchslim/graph/operation_rules.h>

#include <algorithm>

#include "quant/layer_settings.h"

namespace torchslim::quant::detail {
namespace {

using graph::GridRule;
using graph::Node;
using graph::OpKind;

std::string parent_of(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

std::string own_name(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// "aten::sigmoid" -> "sigmoid"
std::string function_name(const Node& node) {
  const std::string name =
      node.call ? own_name(node.call->op.substr(node.call->op.rfind(':') + 1)) : to_string(node.kind);
  return name == "rsub" ? "sub" : name;
}

class Placing {
 public:
  Placing(const graph::Graph& graph, const std::set<std::string>& leaf_layers, const PrepareOptions& options)
      : graph_(graph), leaf_layers_(leaf_layers), options_(options) {
    result_.nodes.resize(graph.nodes.size());
    for (const auto i : c10::irange(static_cast<int64_t>(graph.nodes.size()))) {
      at(i).kind = graph::operation_kind(graph, i);
      at(i).layer = layer_name(i);
      at(i).last = i;
    }
  }

  Placement run() {
    for (const auto i : c10::irange(static_cast<int64_t>(graph_.nodes.size()))) {
      if (!at(i).absorbed) {
        place(i);
      }
    }
    check_used("layer", options_.layers(), used_names_, names_);
    check_used("kind", options_.kinds(), used_kinds_, kinds_);
    return std::move(result_);
  }

 private:
  PlacedNode& at(int64_t index) { return result_.nodes[index]; }
  const graph::OperationRule& rule(int64_t index) { return graph::operation_rule(at(index).kind); }

  // Each use of a layer needs a grid of its own: one that is used again has another name there, for the same weight.
  std::string layer_name(int64_t index) {
    std::string name = graph_.nodes[index].layer;
    if (!graph_.nodes[index].weight.defined() || layers_.insert(name).second) {
      return name;
    }
    name += "_again";
    for (int i = 1; !layers_.insert(name).second; ++i) {
      name = graph_.nodes[index].layer + "_again_" + std::to_string(i);
    }
    return name;
  }

  void place(int64_t index) {
    if (graph_.nodes[index].kind == OpKind::kInput) {
      return place_input(index);
    }
    if (stays_in_float(index)) {
      at(index).in_float = true;
      return;
    }
    for (const int64_t input : graph_.nodes[index].inputs) {
      bring_onto_grid(input);
    }
    if (rule(index).grid == GridRule::kOwn && !is_on_one_grid(index)) {
      place_behind(index);
    } else {
      at(index).grid = grid_of(graph_.nodes[index].inputs.front());
    }
  }

  void place_input(int64_t index) {
    const std::vector<int64_t> users = graph_.users(index);
    const bool read_in_float = !users.empty() && std::all_of(users.begin(), users.end(), [&](int64_t user) {
      return rule(user).grid == GridRule::kOwn && settings_of(user).to_float();
    });
    if (settings("input_fake_quantize", "", "input").to_float() || read_in_float) {
      at(index).in_float = true;
      return;
    }
    at(index).grid = add_quantizer("", "input_fake_quantize", "input");
    at(index).owns_grid = true;
  }

  bool stays_in_float(int64_t index) {
    const std::vector<int64_t>& inputs = graph_.nodes[index].inputs;
    const std::string& kind = at(index).kind;
    const auto in_float = [&](int64_t input) { return at(input).in_float; };
    bool stays = rule(index).grid == GridRule::kFloat;
    const auto is_layer = [&](const std::string& of) { return of == "conv" || of == "linear"; };
    if (kind == "batch_norm" && is_layer(at(inputs[0]).kind) && in_float(inputs[0])) {
      stays = true;  // the layer before it would have taken it, were it not in float
    } else if (rule(index).grid == GridRule::kOwn) {
      stays = settings_of(index).to_float();
    } else if (rule(index).grid == GridRule::kInput) {
      stays = std::any_of(inputs.begin(), inputs.end(), in_float);
    }
    if (stays && (kind.empty() || is_layer(kind) || kind == "batch_norm")) {
      result_.float_layers.push_back(is_leaf(index) ? at(index).layer
                                                    : joined(at(index).layer, function_name(graph_.nodes[index])));
    }
    return stays;
  }

  void bring_onto_grid(int64_t index) {
    PlacedNode& node = at(index);
    if (node.in_float && node.border < 0) {
      node.border = graph_.nodes[index].kind == OpKind::kInput
                        ? add_quantizer("", "input_fake_quantize", "border")
                        : add_quantizer(home(index), "border_fake_quantize", "border");
    }
  }

  // The grid that readers of node `index` on grids find it on.
  int64_t grid_of(int64_t index) { return at(index).in_float ? at(index).border : at(index).grid; }

  // Tensors of one grid stay on it when they are put one behind the other.
  bool is_on_one_grid(int64_t index) {
    const std::vector<int64_t>& inputs = graph_.nodes[index].inputs;
    return at(index).kind == "concat" && std::all_of(inputs.begin(), inputs.end(), [&](int64_t input) {
             return grid_of(input) == grid_of(inputs.front());
           });
  }

  void place_behind(int64_t index) {
    PlacedNode& node = at(index);
    const std::vector<int64_t> users = graph_.users(index);
    if (graph::takes_batch_norm(graph_.nodes[index]) && users.size() == 1 &&
        graph_.nodes[users[0]].kind == OpKind::kBatchNorm2d) {
      node.batch_norm = absorb(index);
    }
    const bool is_function = graph_.nodes[index].kind == OpKind::kAten;
    if (rule(index).takes_activation && !is_function) {
      if (follower_is(node.last, "relu")) {
        node.activation = Activation::kRelu;
        absorb(index);
      } else if (follower_is(node.last, "relu6")) {
        node.activation = Activation::kRelu6;
        absorb(index);
      }
    }
    const auto [parent, name] = quantizer_place(index);
    node.grid = add_quantizer(parent, name, settings_of(index), node.layer, node.activation);
    node.owns_grid = true;
    at(node.last).grid = node.grid;
  }

  bool follower_is(int64_t index, const std::string& kind) {
    const std::vector<int64_t> users = graph_.users(index);
    return users.size() == 1 && at(users[0]).kind == kind;
  }

  int64_t absorb(int64_t index) {
    const int64_t follower = graph_.users(at(index).last)[0];
    at(follower).absorbed = true;
    at(index).last = follower;
    return follower;
  }

  bool is_leaf(int64_t index) const {
    const Node& node = graph_.nodes[index];
    return node.weight.defined() || leaf_layers_.count(node.layer) != 0;
  }

  // The module whose forward writes the operation down.
  std::string home(int64_t index) { return is_leaf(index) ? parent_of(at(index).layer) : at(index).layer; }

  // The module that the quantiser behind a node is added to, and its name there.
  std::pair<std::string, std::string> quantizer_place(int64_t index) {
    const std::string& kind = at(index).kind;
    if (kind == "conv" || kind == "linear") {
      return {at(index).layer, "output_fake_quantize"};
    }
    const bool is_pair = graph_.nodes[index].kind != OpKind::kAten && kind != "batch_norm";
    const std::string name = is_pair          ? kind
                             : is_leaf(index) ? own_name(at(index).layer)
                                              : function_name(graph_.nodes[index]);
    return {home(index), name + "_fake_quantize"};
  }

  LayerOptions settings_of(int64_t index) {
    const std::string& kind = at(index).kind;
    const auto [parent, name] = quantizer_place(index);
    const bool is_layer = kind == "conv" || kind == "linear";
    return settings(is_leaf(index) ? at(index).layer : "", is_layer ? "" : free_path(parent, name), kind);
  }

  // What a layer, and the quantiser behind it, is quantised with.
  LayerOptions settings(const std::string& layer, const std::string& quantizer, const std::string& kind) {
    LayerOptions own;
    kinds_.insert(kind);
    if (const auto found = options_.kinds().find(kind); found != options_.kinds().end()) {
      used_kinds_.insert(kind);
      own = merged(own, found->second);
    }
    for (const std::string& name : {layer, quantizer}) {
      names_.insert(name);
      if (const auto found = options_.layers().find(name); found != options_.layers().end() && !name.empty()) {
        used_names_.insert(name);
        own = merged(own, found->second);
      }
    }
    (void)detail::stays_in_float(layer.empty() ? quantizer : layer, own);
    return own;
  }

  int64_t add_quantizer(const std::string& parent, const std::string& name, const std::string& kind) {
    const std::string path = free_path(parent, name);
    return add_quantizer(parent, name, settings(path, "", kind), path, Activation::kNone);
  }

  int64_t add_quantizer(const std::string& parent, const std::string& name, const LayerOptions& options,
                        const std::string& layer, Activation activation) {
    const std::string path = free_path(parent, name);
    taken_.insert(path);
    result_.quantizers.push_back({path, layer.empty() ? path : layer, activation, options});
    return static_cast<int64_t>(result_.quantizers.size()) - 1;
  }

  std::string free_path(const std::string& parent, const std::string& name) const {
    std::string path = joined(parent, name);
    for (int i = 1; taken_.count(path) != 0; ++i) {
      path = joined(parent, name + "_" + std::to_string(i));
    }
    return path;
  }

  static void check_used(const char* what, const std::map<std::string, LayerOptions>& given,
                         const std::set<std::string>& used, std::set<std::string> known) {
    known.erase("");
    for (const auto& [name, own] : given) {
      TORCH_CHECK_VALUE(used.count(name) != 0, "torchslim::quant::prepare: there is no ", what, " `", name,
                        "`; there are ", c10::Join(", ", std::vector<std::string>(known.begin(), known.end())));
    }
  }

  const graph::Graph& graph_;
  const std::set<std::string>& leaf_layers_;
  const PrepareOptions& options_;
  Placement result_;
  std::set<std::string> layers_;              // with a weight, that nodes so far have
  std::set<std::string> taken_;               // paths of quantisers
  std::set<std::string> names_, used_names_;  // that settings were asked for, and those found
  std::set<std::string> kinds_, used_kinds_;
};

}  // namespace

std::string joined(const std::string& parent, const std::string& name) {
  return parent.empty() ? name : parent + "." + name;
}

Placement place_quantizers(const graph::Graph& graph, const std::set<std::string>& leaf_layers,
                           const PrepareOptions& options) {
  return Placing(graph, leaf_layers, options).run();
}

}  // namespace torchslim::quant::detail
