// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/irange.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torchslim/deploy/integer_graph.h>

#include <sstream>

#include "core/crc32.h"

namespace torchslim::deploy {
namespace {

template <typename T>
void add_number(uint32_t& crc, const T& number) {
  crc = core::crc32(&number, sizeof(number), crc);
}

void add_tensor(uint32_t& crc, const at::Tensor& tensor) {
  if (tensor.defined()) {
    const at::Tensor contiguous = tensor.contiguous();
    crc = core::crc32(contiguous.const_data_ptr(), contiguous.nbytes(), crc);
  }
}

void add_float_node(uint32_t& crc, const graph::Node& node) {
  add_number(crc, static_cast<int32_t>(node.kind));
  add_number(crc, node.dim);
  for (const auto* tensor : {&node.weight, &node.bias, &node.running_mean, &node.running_var}) {
    add_tensor(crc, tensor->value);
  }
  if (node.call) {
    crc = core::crc32(node.call->op.data(), node.call->op.size(), crc);
    for (const c10::IValue& argument : node.call->arguments) {
      if (argument.isTensor()) {
        add_tensor(crc, argument.toTensor());
      } else {
        std::ostringstream text;
        text << argument;
        crc = core::crc32(text.str().data(), text.str().size(), crc);
      }
    }
  }
}

}  // namespace

bool is_transposed(IntegerOp op) { return op == IntegerOp::kConvTranspose1d || op == IntegerOp::kConvTranspose2d; }

const char* to_string(IntegerOp op) {
  switch (op) {
    case IntegerOp::kInput:
      return "input";
    case IntegerOp::kConv2d:
      return "conv2d";
    case IntegerOp::kLinear:
      return "linear";
    case IntegerOp::kAdd:
      return "add";
    case IntegerOp::kClamp:
      return "clamp";
    case IntegerOp::kMaxPool2d:
      return "max_pool2d";
    case IntegerOp::kAvgPool2d:
      return "avg_pool2d";
    case IntegerOp::kGlobalAvgPool:
      return "global_avg_pool";
    case IntegerOp::kFlatten:
      return "flatten";
    case IntegerOp::kMul:
      return "mul";
    case IntegerOp::kTable:
      return "table";
    case IntegerOp::kMove:
      return "move";
    case IntegerOp::kFloat:
      return "float";
    case IntegerOp::kQuantize:
      return "quantize";
    case IntegerOp::kConv1d:
      return "conv1d";
    case IntegerOp::kConvTranspose1d:
      return "conv_transpose1d";
    case IntegerOp::kConvTranspose2d:
      return "conv_transpose2d";
  }
  return "unknown";
}

at::Tensor requantization_factors(const IntegerNode& node, const IntegerNode& input) {
  return node.weight_scale * input.scale * (1.0F / node.scale);
}

WeightCount count_weights(const IntegerGraph& graph) {
  WeightCount count;
  for (const IntegerNode& node : graph.nodes) {
    if (node.codes.defined()) {
      const at::Tensor codes = node.codes.contiguous();
      const int8_t* code = codes.const_data_ptr<int8_t>();
      count.total += codes.numel();
      for (const auto i : c10::irange(codes.numel())) {
        count.nonzero += code[i] != 0 ? 1 : 0;
      }
    }
  }
  return count;
}

std::string checksum(const IntegerGraph& graph) {
  uint32_t crc = 0;
  for (const IntegerNode& node : graph.nodes) {
    add_number(crc, static_cast<int32_t>(node.op));
    for (const int64_t input : node.inputs) {
      add_number(crc, input);
    }
    add_number(crc, node.scale);
    add_number(crc, node.zero_point);
    add_number(crc, node.clamp_min);
    add_number(crc, node.clamp_max);
    const graph::Window& window = node.window;
    for (const auto& pair : {window.kernel, window.stride, window.padding, window.dilation}) {
      add_number(crc, pair);
    }
    add_number(crc, window.groups);
    if (is_transposed(node.op)) {
      add_number(crc, window.output_padding);
    }
    for (const at::Tensor& tensor : {node.codes, node.weight_scale, node.bias_codes, node.table}) {
      add_tensor(crc, tensor);
    }
    if (node.float_node != nullptr && node.op != IntegerOp::kTable) {  // a table says all
      add_float_node(crc, *node.float_node);
    }
  }
  return fmt::format("{:08x}", crc);
}

std::string to_string(const IntegerGraph& graph) {
  std::string text = fmt::format("{:>3}  {:<15} {:<28} {:<9} {:<20} {:>12} {:>5}  {}\n", "#", "op", "layer", "inputs",
                                 "shape", "scale", "zero", "codes");
  for (const auto i : c10::irange(graph.nodes.size())) {
    const IntegerNode& node = graph.nodes[i];
    const std::string op = node.float_node == nullptr || node.op == IntegerOp::kTable ? to_string(node.op)
                           : node.float_node->call                                    ? node.float_node->call->op
                                                   : graph::to_string(node.float_node->kind);
    if (node.gives_floats()) {
      text += fmt::format("{:>3}  {:<15} {:<28} {:<9} {:<20} {:>12}\n", i, op, node.layer.empty() ? "-" : node.layer,
                          fmt::format("{}", fmt::join(node.inputs, ",")), fmt::format("{}", fmt::join(node.shape, "x")),
                          "float");
      continue;
    }
    text += fmt::format("{:>3}  {:<15} {:<28} {:<9} {:<20} {:>12.6g} {:>5}  {}..{}\n", i, op,
                        node.layer.empty() ? "-" : node.layer, fmt::format("{}", fmt::join(node.inputs, ",")),
                        fmt::format("{}", fmt::join(node.shape, "x")), node.scale, node.zero_point, node.clamp_min,
                        node.clamp_max);
  }
  return text;
}

}  // namespace torchslim::deploy
