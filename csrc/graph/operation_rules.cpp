// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/graph/operation_rules.h>

#include <algorithm>
#include <array>

namespace torchslim::graph {
namespace {

using Shape = std::vector<int64_t>;

bool scales_channels(const Shape& image, const Shape& factor) {
  return image.size() == 4 && factor == Shape{image[0], image[1], 1, 1};
}

// As integer runtimes do; they divide by the size of the window everywhere.
bool counts_every_place(const Shape& in, const Shape& out, const Window& window) {
  bool every = window.count_include_pad || window.padding == std::array<int64_t, 2>{0, 0};
  for (size_t d = 4 - in.size(); d < 2; ++d) {  // a length has the window of a width
    const size_t axis = in.size() - 2 + d;
    every = every && out[axis] == (in[axis] + 2 * window.padding[d] - window.kernel[d]) / window.stride[d] + 1;
  }
  return every;
}

std::string kind_of_call(const AtenCall& call) {
  if (call.op.find("dropout") != std::string::npos) {
    return "dropout";
  }
  if (call.role != AtenRole::kElementwise) {
    return call.role == AtenRole::kCopies ? "move" : "";
  }
  const std::string name = call.op.substr(call.op.rfind(':') + 1);
  if (name == "add" || name == "mul") {
    return name;  // with a number
  }
  return name == "sub" || name == "rsub" || name == "div" || name == "neg" ? "arithmetic" : "function";
}

std::string kind_of(const Node& node) {
  switch (node.kind) {
    case OpKind::kInput:
      return "input";
    case OpKind::kConv1d:
    case OpKind::kConv2d:
    case OpKind::kConvTranspose1d:
    case OpKind::kConvTranspose2d:
      return "conv";
    case OpKind::kLinear:
      return "linear";
    case OpKind::kBatchNorm2d:
      return "batch_norm";
    case OpKind::kRelu:
      return "relu";
    case OpKind::kRelu6:
      return "relu6";
    case OpKind::kAdd:
      return "add";
    case OpKind::kMul:
      return "mul";
    case OpKind::kConcat:
      return "concat";
    case OpKind::kMaxPool2d:
      return "max_pool";
    case OpKind::kAvgPool2d:
      return "avg_pool";
    case OpKind::kGlobalAvgPool:
      return "adaptive_avg_pool";
    case OpKind::kFlatten:
      return "flatten";
    case OpKind::kAten:
      return kind_of_call(*node.call);
    case OpKind::kFakeQuantize:
      break;
  }
  TORCH_CHECK_VALUE(false, "torchslim::graph::operation_kind: a fake_quantize is what rules put in, and has none");
}

}  // namespace

const std::vector<OperationRule>& operation_rules() {
  using enum GridRule;
  static const std::vector<OperationRule> rules{
      {"input", kOwn, false, false},
      {"border", kOwn, false, false},  // the quantiser of what is in float
      {"conv", kOwn, true, true},
      {"linear", kOwn, true, true},
      {"batch_norm", kOwn, false, true},
      {"add", kOwn, false, true},
      {"mul", kOwn, false, true},
      {"concat", kOwn, false, true},  // none where all of its inputs are on one grid
      {"arithmetic", kOwn, false, false},
      {"function", kOwn, false, false},
      {"relu", kInput, false, false},
      {"relu6", kInput, false, false},
      {"adaptive_avg_pool", kInput, false, false},
      {"mean", kInput, false, false},
      {"avg_pool", kInput, false, false},
      {"max_pool", kInput, false, false},
      {"flatten", kInput, false, false},
      {"move", kInput, false, false},
      {"dropout", kInput, false, false},
      {"", kFloat, false, false},
  };
  return rules;
}

const OperationRule& operation_rule(const std::string& kind) {
  const auto& rules = operation_rules();
  const auto found = std::find_if(rules.begin(), rules.end(), [&](const auto& rule) { return rule.kind == kind; });
  TORCH_CHECK_VALUE(found != rules.end(), "torchslim::graph::operation_rule: there is no kind `", kind, "`");
  return *found;
}

bool has_integer_form(const std::string& kind, const std::vector<std::vector<int64_t>>& inputs,
                      const std::vector<int64_t>& output, const Window& window) {
  if (operation_rule(kind).grid == GridRule::kFloat) {
    return false;
  }
  const bool is_image = !inputs.empty() && inputs[0].size() == 4;
  const bool has_places = is_image || (!inputs.empty() && inputs[0].size() == 3);
  if (kind == "add" && inputs.size() == 2) {
    return inputs[0] == inputs[1];
  }
  if (kind == "mul" && inputs.size() == 2) {
    return inputs[0] == inputs[1] || scales_channels(inputs[0], inputs[1]) || scales_channels(inputs[1], inputs[0]);
  }
  if (kind == "batch_norm") {
    return is_image;
  }
  if (kind == "avg_pool") {
    return has_places && counts_every_place(inputs[0], output, window);
  }
  if (kind == "adaptive_avg_pool") {
    return has_places && output.size() == inputs[0].size() &&
           std::all_of(output.begin() + 2, output.end(), [](int64_t size) { return size == 1; });
  }
  return true;
}

bool takes_batch_norm(const Node& node) {
  const std::string kind = kind_of(node);
  return operation_rule(kind).takes_batch_norm && (kind != "linear" || node.shape.size() == 2);
}

std::string operation_kind(const Graph& graph, int64_t index) {
  const Node& node = graph.nodes.at(index);
  const std::string kind = kind_of(node);
  std::vector<std::vector<int64_t>> inputs;
  for (const int64_t input : node.inputs) {
    inputs.push_back(graph.nodes.at(input).shape);
  }
  return has_integer_form(kind, inputs, node.shape, node.window) ? kind : "";
}

}  // namespace torchslim::graph
