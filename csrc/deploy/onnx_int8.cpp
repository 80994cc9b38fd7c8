// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torchslim/deploy/onnx.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/deploy/target.h>
#include <torchslim/graph/transposed_weight.h>

#include <algorithm>
#include <limits>
#include <map>

#include "deploy/manifest.h"
#include "deploy/onnx_call.h"
#include "deploy/onnx_file.h"
#include "deploy/onnx_operations.h"

namespace torchslim::deploy {
namespace {

using Value = OnnxBuilder::Value;

constexpr double kNoBound = std::numeric_limits<double>::infinity();
constexpr int64_t kLargestInt4 = 7;
constexpr int64_t kInt32Type = 6;  // TensorProto.DataType

/// Writes an integer graph in QDQ form.
class QdqWriter {
 public:
  QdqWriter(const IntegerGraph& graph, OnnxBuilder& builder, bool int4)
      : graph_(graph), builder_(builder), operations_(builder, graph.nodes.front().shape[0]), int4_(int4) {
    for (const IntegerNode& node : graph.nodes) {
      builder_.at(node.layer);
      values_.push_back(write(node));
    }
    const auto last = static_cast<int64_t>(graph.nodes.size()) - 1;
    builder_.finish(floats(last).name, graph.nodes.back().shape);
  }

 private:
  const IntegerNode& input_node(const IntegerNode& node, size_t i) const { return graph_.nodes[node.inputs[i]]; }

  // The name of what node `index` stands for, as floats.
  OnnxValue floats(int64_t index) {
    const IntegerNode& node = graph_.nodes[index];
    if (node.gives_floats()) {
      return {values_[index], node.shape};
    }
    Value& known = floats_[index];
    if (known.empty()) {
      const auto [scale, zero_point] = grid(node);
      known = builder_.call("DequantizeLinear", {values_[index], scale, zero_point});
    }
    return {known, node.shape};
  }

  std::vector<OnnxValue> all_floats(const IntegerNode& node) {
    std::vector<OnnxValue> inputs;
    for (const int64_t input : node.inputs) {
      inputs.push_back(floats(input));
    }
    return inputs;
  }

  std::pair<Value, Value> grid(const IntegerNode& node) {
    return {builder_.constant(node.scale), builder_.constant(at::full({}, node.zero_point + kUint8Shift, at::kByte))};
  }

  Value quantized(const IntegerNode& node, const Value& floats) {
    const auto [scale, zero_point] = grid(node);
    return builder_.call("QuantizeLinear", {floats, scale, zero_point});
  }

  // An activation, and the ends of a grid of fewer bits, where uint8 goes beyond them: as the values of their codes.
  Value bounded(const IntegerNode& node, const Value& floats) {
    const bool below = node.clamp_min > -128, above = node.clamp_max < 127;
    if (below && !above && node.clamp_min == node.zero_point) {
      return builder_.call("Relu", {floats});
    }
    const auto value_of = [&](int32_t code) { return static_cast<double>(code - node.zero_point) * node.scale; };
    return below || above ? operations_.clip(floats, below ? value_of(node.clamp_min) : -kNoBound,
                                             above ? value_of(node.clamp_max) : kNoBound)
                          : floats;
  }

  Value computed(const IntegerNode& node, const Value& floats) { return quantized(node, bounded(node, floats)); }

  // What keeps its input's grid: bounded where its codes have other ends than the input's.
  Value kept(const IntegerNode& node, const Value& floats) {
    return is_narrower(node) ? computed(node, floats) : quantized(node, floats);
  }

  bool is_narrower(const IntegerNode& node) const {
    return std::any_of(node.inputs.begin(), node.inputs.end(), [&](int64_t input) {
      const IntegerNode& before = graph_.nodes[input];
      return before.clamp_min < node.clamp_min || before.clamp_max > node.clamp_max;
    });
  }

  Value write(const IntegerNode& node) {
    switch (node.op) {
      case IntegerOp::kInput:
        return computed(node, builder_.input());
      case IntegerOp::kConv1d:
        return write_convolution(node, graph::OpKind::kConv1d);
      case IntegerOp::kConv2d:
        return write_convolution(node, graph::OpKind::kConv2d);
      case IntegerOp::kConvTranspose1d:
        return write_convolution(node, graph::OpKind::kConvTranspose1d);
      case IntegerOp::kConvTranspose2d:
        return write_convolution(node, graph::OpKind::kConvTranspose2d);
      case IntegerOp::kLinear:
        return write_linear(node);
      case IntegerOp::kAdd:
        return computed(node, builder_.call("Add", {floats(node.inputs[0]).name, floats(node.inputs[1]).name}));
      case IntegerOp::kMul:
        return computed(node, builder_.call("Mul", {floats(node.inputs[0]).name, floats(node.inputs[1]).name}));
      case IntegerOp::kClamp:
        return kept(node, floats(node.inputs[0]).name);
      case IntegerOp::kMaxPool2d:
        return kept(node, operations_.pool("MaxPool", shape_of(node), floats(node.inputs[0]), node.window));
      case IntegerOp::kAvgPool2d:
        return kept(node, operations_.pool("AveragePool", shape_of(node), floats(node.inputs[0]), node.window));
      case IntegerOp::kGlobalAvgPool:
        return kept(node, builder_.call("GlobalAveragePool", {floats(node.inputs[0]).name}));
      case IntegerOp::kFlatten:
        return kept(node, builder_.call("Flatten", {floats(node.inputs[0]).name}, {{"axis", int64_t{1}}}));
      case IntegerOp::kMove:
        if (pads_with_zeros(*node.float_node) && !is_narrower(node)) {
          const OnnxValue codes{values_[node.inputs[0]], input_node(node, 0).shape};
          return pad_codes(operations_, *node.float_node, codes, node.zero_point + kUint8Shift);
        }
        return kept(node, operations_.write(*node.float_node, all_floats(node)));
      case IntegerOp::kTable:
        return write_table(node);
      case IntegerOp::kFloat:
        return node.inputs.empty() ? builder_.input() : operations_.write(*node.float_node, all_floats(node));
      case IntegerOp::kQuantize:
        return computed(node, values_[node.inputs[0]]);
    }
    TORCH_CHECK(false, "torchslim::save_onnx: layer '", node.layer, "': unknown operation");
  }

  // As a node of a graph, of which `pool` reads name and result.
  static graph::Node shape_of(const IntegerNode& node) {
    graph::Node shape;
    shape.layer = node.layer;
    shape.shape = node.shape;
    return shape;
  }

  // Codes on their grid, one scale for each channel along `axis`.
  Value weight(const IntegerNode& node, const at::Tensor& codes, int64_t axis) {
    const bool fits = int4_ && codes.abs().max().item<int64_t>() <= kLargestInt4;
    // Each layer has its own: onnxruntime stumbles over one tensor of two layers when it makes uint8 of int8 weights.
    const auto stored = [&](const at::Tensor& numbers) {
      return fits ? builder_.constant_int4(numbers) : builder_.constant(numbers, /*shared=*/false);
    };
    const Value zeros = stored(at::zeros({node.weight_scale.numel()}, at::kChar));
    return builder_.call("DequantizeLinear", {stored(codes), builder_.constant(node.weight_scale), zeros},
                         {{"axis", axis}});
  }

  Value bias(const IntegerNode& node) {
    const at::Tensor scale = node.weight_scale * input_node(node, 0).scale;
    return builder_.call("DequantizeLinear", {builder_.constant(node.bias_codes), builder_.constant(scale)},
                         {{"axis", int64_t{0}}});
  }

  Value write_convolution(const IntegerNode& node, graph::OpKind kind) {
    const int64_t groups = node.window.groups;
    Value weights;
    if (!graph::is_transposed(kind)) {
      weights = weight(node, node.codes, 0);
    } else if (groups == 1) {
      weights = weight(node, graph::transposed_weight(node.codes, 1).contiguous(), 1);
    } else {
      weights = turned(node, groups);
    }
    return computed(node, operations_.convolution(kind, node.window, floats(node.inputs[0]).name, weights, bias(node)));
  }

  // (O, I/groups, ...) as ConvTranspose wants it, (I, O/groups, ...); no axis of that has one scale for each channel.
  Value turned(const IntegerNode& node, int64_t groups) {
    std::vector<int64_t> apart = node.codes.sizes().vec(), order(apart.size() + 1);
    apart[0] /= groups;
    apart.insert(apart.begin(), groups);
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = static_cast<int64_t>(i);
    }
    std::swap(order[1], order[2]);
    std::vector<int64_t> together = node.codes.sizes().vec();
    together[0] = groups * apart[2];
    together[1] = apart[1];
    const Value pieces = builder_.call("Reshape", {weight(node, node.codes, 0), builder_.constant(apart)});
    const Value swapped = builder_.call("Transpose", {pieces}, {{"perm", order}});
    return builder_.call("Reshape", {swapped, builder_.constant(together)});
  }

  Value write_linear(const IntegerNode& node) {
    const OnnxValue x = floats(node.inputs[0]);
    if (x.shape.size() == 2) {
      return computed(node, operations_.linear(x, weight(node, node.codes, 0), bias(node)));
    }
    const Value product = builder_.call("MatMul", {x.name, weight(node, node.codes.t().contiguous(), 1)});
    return computed(node, builder_.call("Add", {product, bias(node)}));
  }

  // A function of each element, the same value on another grid, or a look-up where the function is not known.
  Value write_table(const IntegerNode& node) {
    if (node.float_node != nullptr) {
      return computed(node, operations_.write(*node.float_node, all_floats(node)));
    }
    if (is_requantisation(node)) {
      return computed(node, floats(node.inputs[0]).name);
    }
    const Value table = builder_.constant((node.table.to(at::kInt) + kUint8Shift).to(at::kByte));
    const Value index = builder_.call("Cast", {values_[node.inputs[0]]}, {{"to", kInt32Type}});
    return builder_.call("Gather", {table, index});
  }

  bool is_requantisation(const IntegerNode& node) const {
    const IntegerNode& input = input_node(node, 0);
    const at::Tensor values = (at::arange(-128, 128, at::kFloat) - static_cast<float>(input.zero_point)) * input.scale;
    const at::Tensor codes = ((values * (1.0F / node.scale)).round() + static_cast<float>(node.zero_point))
                                 .clamp(node.clamp_min, node.clamp_max);
    return codes.to(at::kChar).equal(node.table);
  }

  const IntegerGraph& graph_;
  OnnxBuilder& builder_;
  OnnxOperations operations_;
  bool int4_;
  std::vector<Value> values_;        // of codes, or of floats where a node gives them
  std::map<int64_t, Value> floats_;  // of nodes that give codes
};

}  // namespace

SavedFile save_onnx(const IntegerGraph& graph, const std::string& path, const SaveOptions& options) {
  TORCH_CHECK_VALUE(!graph.nodes.empty(), "torchslim::save_onnx: the graph is empty");
  const std::vector<int64_t>& shape = graph.nodes.front().shape;
  check_save(path, ".onnx", shape, options);
  require_fit(graph, "onnx", "torchslim::save_onnx");
  const IntegerResult expected = run_integer(graph, int8_sample(graph));
  const bool int4 = options.opset.value_or(kInt4Opset) >= kInt4Opset;
  return write_onnx(path, "int8", int8_manifest(kOnnxFormat, graph, options, expected), shape, options,
                    [&](OnnxBuilder& builder) { QdqWriter(graph, builder, int4); });
}

}  // namespace torchslim::deploy
