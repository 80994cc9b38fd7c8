// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/graph/graph.h>

#include <algorithm>
#include <iomanip>
#include <sstream>

namespace torchslim::graph {
namespace {

template <typename Sequence>
std::string joined(const Sequence& items) {
  std::ostringstream text;
  bool first = true;
  for (const auto item : items) {
    text << (first ? "" : ", ") << item;
    first = false;
  }
  return text.str();
}

std::string quoted(const std::string& text) {
  std::ostringstream json;
  json << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json << '\\' << c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      json << "\\u" << std::hex << std::setw(4) << std::setfill('0') << static_cast<int>(c) << std::dec;
    } else {
      json << c;
    }
  }
  json << '"';
  return json.str();
}

bool has_window(OpKind kind) {
  return is_convolution(kind) || kind == OpKind::kMaxPool2d || kind == OpKind::kAvgPool2d;
}

void put_window(std::ostream& json, const Node& node) {
  const Window& window = node.window;
  json << ", \"kernel\": [" << joined(window.kernel) << "], \"stride\": [" << joined(window.stride)
       << "], \"padding\": [" << joined(window.padding) << "]";
  if (node.kind != OpKind::kAvgPool2d) {
    json << ", \"dilation\": [" << joined(window.dilation) << "]";
  }
  if (is_convolution(node.kind)) {
    json << ", \"groups\": " << window.groups;
    if (is_transposed(node.kind)) {
      json << ", \"output_padding\": [" << joined(window.output_padding) << "]";
    }
  } else {
    json << ", \"ceil_mode\": " << (window.ceil_mode ? "true" : "false");
  }
  if (node.kind == OpKind::kAvgPool2d) {
    json << ", \"count_include_pad\": " << (window.count_include_pad ? "true" : "false");
  }
}

void put_tensor(std::ostream& json, const char* key, const NamedTensor& tensor) {
  if (tensor.defined()) {
    json << ", \"" << key << "\": {\"name\": " << quoted(tensor.name) << ", \"shape\": ["
         << joined(tensor.value.sizes()) << "]}";
  }
}

void put_grid(std::ostream& json, const char* key, const std::optional<Grid>& grid) {
  if (grid) {
    json << ", \"" << key << "\": {\"quant_min\": " << grid->quant_min << ", \"quant_max\": " << grid->quant_max
         << ", \"axis\": ";
    if (grid->axis) {
      json << *grid->axis << "}";
    } else {
      json << "null}";
    }
  }
}

// Numbers and lists of them as they print; tensors by their shape.
void put_call(std::ostream& json, const AtenCall& call) {
  json << ", \"op\": " << quoted(call.op) << ", \"arguments\": [";
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    const c10::IValue& argument = call.arguments[i];
    std::ostringstream text;
    if (argument.isTensor()) {
      text << "tensor (" << joined(argument.toTensor().sizes()) << ")";
    } else if (std::find(call.slots.begin(), call.slots.end(), i) != call.slots.end()) {
      text << "input";
    } else {
      text << argument;
    }
    json << (i == 0 ? "" : ", ") << quoted(text.str());
  }
  json << "]";
}

void put_node(std::ostream& json, const Node& node) {
  json << "{\"kind\": \"" << to_string(node.kind) << "\", \"layer\": " << quoted(node.layer) << ", \"inputs\": ["
       << joined(node.inputs) << "], \"shape\": [" << joined(node.shape) << "]";
  if (has_window(node.kind)) {
    put_window(json, node);
  }
  put_tensor(json, "weight", node.weight);
  put_tensor(json, "bias", node.bias);
  put_tensor(json, "running_mean", node.running_mean);
  put_tensor(json, "running_var", node.running_var);
  if (node.kind == OpKind::kBatchNorm2d) {
    json << ", \"eps\": " << std::setprecision(9) << node.eps;
  }
  if (node.kind == OpKind::kConcat) {
    json << ", \"dim\": " << node.dim;
  }
  if (node.call) {
    put_call(json, *node.call);
  }
  put_grid(json, "weight_grid", node.weight_grid);
  put_grid(json, "grid", node.grid);
  json << "}";
}

}  // namespace

bool is_convolution(OpKind kind) { return kind == OpKind::kConv1d || kind == OpKind::kConv2d || is_transposed(kind); }

bool is_transposed(OpKind kind) { return kind == OpKind::kConvTranspose1d || kind == OpKind::kConvTranspose2d; }

const char* to_string(OpKind kind) {
  switch (kind) {
    case OpKind::kInput:
      return "input";
    case OpKind::kConv2d:
      return "conv2d";
    case OpKind::kLinear:
      return "linear";
    case OpKind::kBatchNorm2d:
      return "batch_norm2d";
    case OpKind::kRelu:
      return "relu";
    case OpKind::kRelu6:
      return "relu6";
    case OpKind::kAdd:
      return "add";
    case OpKind::kMaxPool2d:
      return "max_pool2d";
    case OpKind::kAvgPool2d:
      return "avg_pool2d";
    case OpKind::kGlobalAvgPool:
      return "global_avg_pool";
    case OpKind::kFlatten:
      return "flatten";
    case OpKind::kFakeQuantize:
      return "fake_quantize";
    case OpKind::kMul:
      return "mul";
    case OpKind::kConcat:
      return "concat";
    case OpKind::kAten:
      return "aten";
    case OpKind::kConv1d:
      return "conv1d";
    case OpKind::kConvTranspose1d:
      return "conv_transpose1d";
    case OpKind::kConvTranspose2d:
      return "conv_transpose2d";
  }
  TORCH_CHECK_VALUE(false, "torchslim::graph::to_string: no such kind: ", static_cast<int>(kind));
}

std::vector<int64_t> Graph::users(int64_t index) const {
  TORCH_CHECK_INDEX(index >= 0 && index < static_cast<int64_t>(nodes.size()),
                    "torchslim::graph::Graph::users: expected a node in [0, ", nodes.size(), "), got ", index);
  std::vector<int64_t> found;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto& inputs = nodes[i].inputs;
    if (std::find(inputs.begin(), inputs.end(), index) != inputs.end()) {
      found.push_back(static_cast<int64_t>(i));
    }
  }
  return found;
}

std::string to_string(const Graph& graph) {
  size_t layer_width = 5;
  for (const Node& node : graph.nodes) {
    layer_width = std::max(layer_width, node.layer.size());
  }
  std::ostringstream text;
  text << std::left << std::setw(6) << "node" << std::setw(17) << "kind" << std::setw(static_cast<int>(layer_width) + 2)
       << "layer" << std::setw(12) << "inputs"
       << "shape\n";
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    text << std::setw(6) << i << std::setw(17)
         << (node.call ? node.call->op.substr(node.call->op.find("::") + 2) : to_string(node.kind))
         << std::setw(static_cast<int>(layer_width) + 2) << node.layer << std::setw(12) << joined(node.inputs) << "("
         << joined(node.shape) << ")" << (node.weight_grid ? "  fake-quantised weight" : "") << "\n";
  }
  return text.str();
}

std::string to_json(const Graph& graph) {
  std::ostringstream json;
  json << "{\"nodes\": [";
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    json << (i == 0 ? "\n  " : ",\n  ");
    put_node(json, graph.nodes[i]);
  }
  json << "\n]}\n";
  return json.str();
}

}  // namespace torchslim::graph
