// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_empty_per_channel_affine_quantized.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/graph/transposed_weight.h>

#include <algorithm>
#include <unordered_map>

#include "deploy/float_operations.h"
#include "deploy/manifest.h"
#include "deploy/ptl_file.h"
#include "deploy/runtime_guards.h"
#include "deploy/target_profile.h"

namespace torchslim::deploy {
namespace {

constexpr int64_t kQuint8 = 13;                                   // at::kQUInt8, as serialised programs write it
constexpr int64_t kByte = 0, kLong = 4, kFloat = 6, kDouble = 7;  // likewise
constexpr int64_t kCodes = 256;                                   // that a table has

c10::List<int64_t> int_list(const std::array<int64_t, 2>& pair) { return c10::List<int64_t>({pair[0], pair[1]}); }

c10::IValue call_operator(const char* name, torch::jit::Stack stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
  return std::move(stack.at(0));
}

/// All weights of a graph in a few storages: each storage is one record of the file, whatever the number of layers.
class PackedWeights {
 public:
  explicit PackedWeights(const IntegerGraph& graph)
      : codes_(total(graph, &IntegerNode::codes, kPacked), at::kChar),
        scales_(total(graph, &IntegerNode::weight_scale, kPacked), at::kDouble),
        biases_(total(graph, &IntegerNode::bias, kPacked), at::kFloat),
        plain_codes_(total(graph, &IntegerNode::codes, kPlain), at::kChar),
        plain_biases_(total(graph, &IntegerNode::bias_codes, kPlain), at::kInt),
        factors_(total(graph, &IntegerNode::bias, kPlain), at::kFloat),
        zero_points_(at::zeros({most_channels(graph)}, at::TensorOptions().dtype(at::kLong))) {}

  /// Returns the packed parameters that quantized::conv2d and quantized::linear take.
  c10::IValue pack(const IntegerNode& node) {
    const bool conv = node.op == IntegerOp::kConv2d;
    const at::Tensor weight = quantized_weight(node);
    at::Tensor bias = biases_.take(node.bias.numel());
    bias.copy_(node.bias);
    if (!conv) {
      return call_operator("quantized::linear_prepack", {weight, bias});
    }
    const graph::Window& w = node.window;
    return call_operator("quantized::conv2d_prepack",
                         {weight, bias, int_list(w.stride), int_list(w.padding), int_list(w.dilation), w.groups});
  }

  /// What a transposed convolution in float takes.
  struct Plain {
    at::Tensor weight;   // int8, as ATen has it: (I, O/groups, ...)
    at::Tensor bias;     // int32 (O)
    at::Tensor factors;  // float32 (O): of the sums
  };

  Plain plain(const IntegerNode& node, const IntegerNode& input) {
    const at::Tensor weight = graph::transposed_weight(node.codes, node.window.groups);
    const int64_t channels = node.bias_codes.numel();
    return {plain_codes_.take(weight.numel()).view(weight.sizes()).copy_(weight),
            plain_biases_.take(channels).copy_(node.bias_codes),
            factors_.take(channels).copy_(requantization_factors(node, input))};
  }

 private:
  enum Use { kPacked, kPlain };

  static int64_t total(const IntegerGraph& graph, at::Tensor IntegerNode::*member, Use use) {
    int64_t numel = 0;
    for (const IntegerNode& node : graph.nodes) {
      const bool counts = (node.*member).defined() && is_transposed(node.op) == (use == kPlain);
      numel += counts ? (node.*member).numel() : 0;
    }
    return numel;
  }

  static int64_t most_channels(const IntegerGraph& graph) {
    int64_t channels = 0;
    for (const IntegerNode& node : graph.nodes) {
      channels = std::max(channels, node.bias.defined() ? node.bias.numel() : 0);
    }
    return channels;
  }

  // The codes in the layout that prepacking keeps (channels last), as a quantised tensor over the shared storage.
  at::Tensor quantized_weight(const IntegerNode& node) {
    at::Tensor codes = codes_.take(node.codes.numel());
    if (node.codes.dim() == 4) {
      const auto size = node.codes.sizes();
      codes = codes.view({size[0], size[2], size[3], size[1]}).permute({0, 3, 1, 2});
    } else {
      codes = codes.view(node.codes.sizes());
    }
    codes.copy_(node.codes);
    const int64_t channels = node.weight_scale.numel();
    at::Tensor scales = scales_.take(channels);
    scales.copy_(node.weight_scale);
    at::Tensor weight = at::_empty_per_channel_affine_quantized({0}, scales, zero_points_.narrow(0, 0, channels), 0,
                                                                at::TensorOptions().dtype(at::kQInt8));
    c10::TensorImpl* impl = weight.unsafeGetTensorImpl();
    impl->set_storage_keep_dtype(codes.storage());
    impl->set_storage_offset(codes.storage_offset());
    impl->set_sizes_and_strides(codes.sizes(), codes.strides());
    return weight;
  }

  SharedStorage codes_;
  SharedStorage scales_;
  SharedStorage biases_;
  SharedStorage plain_codes_;  // a storage of quantised tensors can hold no others
  SharedStorage plain_biases_;
  SharedStorage factors_;
  at::Tensor zero_points_;
};

/// Writes an integer graph as calls of quantized:: and aten:: operators.
class Int8Writer {
 public:
  explicit Int8Writer(const IntegerGraph& graph)
      : graph_(graph),
        weights_(graph),
        tables_(count_tables(graph) * kCodes, at::kByte),
        operations_(builder_, float_nodes(graph)) {
    for (const IntegerNode& node : graph.nodes) {
      values_.push_back(write(node));
    }
    const bool floats = graph.nodes.back().gives_floats();
    builder_.finish(floats ? values_.back() : builder_.call("aten::dequantize", values_.back()));
  }

  std::string serialize(const std::unordered_map<std::string, std::string>& extra) const {
    return builder_.serialize(extra);
  }

 private:
  using Value = TorchScriptBuilder::Value;

  static std::vector<int64_t> list(const std::array<int64_t, 2>& pair) { return {pair[0], pair[1]}; }

  static int64_t count_tables(const IntegerGraph& graph) {
    return std::count_if(graph.nodes.begin(), graph.nodes.end(), [](const auto& node) { return node.table.defined(); });
  }

  static std::vector<const graph::Node*> float_nodes(const IntegerGraph& graph) {
    std::vector<const graph::Node*> nodes;
    for (const IntegerNode& node : graph.nodes) {
      if (node.float_node != nullptr && node.op != IntegerOp::kTable) {
        nodes.push_back(node.float_node.get());
      }
    }
    return nodes;
  }

  Value* write(const IntegerNode& node) {
    return arithmetic_of(node, qnnpack_) == Arithmetic::kInteger ? write_integer(node) : write_float(node);
  }

  // Through a kernel of QNNPACK's, or one that copies codes.
  Value* write_integer(const IntegerNode& node) {
    const double scale = node.scale;
    const int64_t zero_point = node.zero_point + kUint8Shift;
    const graph::Window& w = node.window;
    const auto input = [&](size_t i) { return values_[node.inputs[i]]; };
    switch (node.op) {
      case IntegerOp::kInput:
        return bounded(node, builder_.call("aten::quantize_per_tensor", builder_.input(), scale, zero_point, kQuint8));
      case IntegerOp::kConv2d:
      case IntegerOp::kLinear: {
        const bool conv = node.op == IntegerOp::kConv2d;
        const char* plain = conv ? "quantized::conv2d" : "quantized::linear";
        const char* relu = conv ? "quantized::conv2d_relu" : "quantized::linear_relu";
        Value* packed = builder_.attribute(weights_.pack(node));
        return bounded(node, builder_.call(has_relu(node) ? relu : plain, input(0), packed, scale, zero_point));
      }
      case IntegerOp::kAdd: {
        const char* name = has_relu(node) ? "quantized::add_relu" : "quantized::add";
        return bounded(node, builder_.call(name, input(0), input(1), scale, zero_point));
      }
      case IntegerOp::kClamp:
        return has_relu(node) && node.clamp_max >= graph_.nodes[node.inputs[0]].clamp_max
                   ? builder_.call("aten::relu", input(0))
                   : bounded(node, input(0));
      case IntegerOp::kMaxPool2d:
        return builder_.call("aten::max_pool2d", input(0), list(w.kernel), list(w.stride), list(w.padding),
                             list(w.dilation), w.ceil_mode);
      case IntegerOp::kAvgPool2d:
        return builder_.call("aten::avg_pool2d", input(0), list(w.kernel), list(w.stride), list(w.padding), false, true,
                             c10::IValue());
      case IntegerOp::kGlobalAvgPool:
        return builder_.call("aten::adaptive_avg_pool2d", input(0), std::vector<int64_t>{1, 1});
      case IntegerOp::kFlatten:
        return builder_.call("aten::flatten", input(0), int64_t{1}, int64_t{-1});
      case IntegerOp::kConv1d:
        return write_conv1d(node);
      default:
        break;
    }
    return cannot_write(node);
  }

  // What QNNPACK has no operation for is float arithmetic on whole numbers: the same bits in every runtime.
  Value* write_float(const IntegerNode& node) {
    const graph::Window& w = node.window;
    const auto input = [&](size_t i) { return values_[node.inputs[i]]; };
    switch (node.op) {
      case IntegerOp::kMaxPool2d:
        return codes(node, builder_.call("aten::max_pool2d", steps(node.inputs[0]), list(w.kernel), list(w.stride),
                                         list(w.padding), list(w.dilation), w.ceil_mode));
      case IntegerOp::kAvgPool2d:  // of one element: what is left out between strides
        return codes(node, builder_.call("aten::avg_pool2d", steps(node.inputs[0]), list(w.kernel), list(w.stride),
                                         list(w.padding), false, true, c10::IValue()));
      case IntegerOp::kMul: {
        const float multiplier = input_node(node, 0).scale * input_node(node, 1).scale / node.scale;
        Value* product = builder_.call("aten::mul", steps(node.inputs[0]), steps(node.inputs[1]));
        return codes(node, builder_.call("aten::round", scaled(product, multiplier)));
      }
      case IntegerOp::kTable: {
        const at::Tensor table = tables_.take(kCodes);
        table.copy_(node.table.to(at::kInt) + kUint8Shift);
        Value* index =
            builder_.call("aten::to", builder_.call("aten::int_repr", input(0)), kLong, false, false, c10::IValue());
        return quantized(node, builder_.call("aten::take", builder_.attribute(table), index));
      }
      case IntegerOp::kMove: {
        std::vector<Value*> inputs;
        for (const int64_t i : node.inputs) {
          inputs.push_back(steps(i));
        }
        return codes(node, operations_.write(*node.float_node, inputs));
      }
      case IntegerOp::kFloat: {
        std::vector<Value*> inputs;
        for (const int64_t i : node.inputs) {
          inputs.push_back(floats(i));
        }
        return inputs.empty() ? builder_.input() : operations_.write(*node.float_node, inputs);
      }
      case IntegerOp::kQuantize:
        return codes(node, builder_.call("aten::round", scaled(input(0), 1.0F / node.scale)));
      case IntegerOp::kConvTranspose1d:
      case IntegerOp::kConvTranspose2d:
        return write_transposed(node);
      default:
        break;
    }
    return cannot_write(node);
  }

  static Value* cannot_write(const IntegerNode& node) {
    TORCH_INTERNAL_ASSERT(false, "torchslim::save_ptl: layer '", node.layer, "': ", to_string(node.op),
                          " has no form in a .ptl file");
  }

  // QNNPACK has one scale for the whole weight there. Floats hold each sum exactly, doubles where it may pass 2^24.
  Value* write_transposed(const IntegerNode& node) {
    constexpr double kWholeFloats = 16777216, kLargestStep = 255;
    const at::Tensor sums =
        node.codes.flatten(1).to(at::kDouble).abs().sum(1) * kLargestStep + node.bias_codes.to(at::kDouble).abs();
    const int64_t type = sums.max().item<double>() < kWholeFloats ? kFloat : kDouble;
    const auto wide = [&](Value* value) { return builder_.call("aten::to", value, type, false, false, c10::IValue()); };
    const graph::Window& w = node.window;
    const bool plane = node.op == IntegerOp::kConvTranspose2d;
    const auto sizes = [plane](const std::array<int64_t, 2>& pair) {
      return plane ? list(pair) : std::vector<int64_t>{pair[1]};
    };
    const PackedWeights::Plain plain = weights_.plain(node, input_node(node, 0));
    Value* weight = builder_.attribute(plain.weight);
    Value* bias = builder_.attribute(plain.bias);
    Value* sum = builder_.call(plane ? "aten::conv_transpose2d" : "aten::conv_transpose1d", wide(steps(node.inputs[0])),
                               wide(weight), wide(bias), sizes(w.stride), sizes(w.padding), sizes(w.output_padding),
                               w.groups, sizes(w.dilation));
    const std::vector<int64_t> places = plane ? std::vector<int64_t>{-1, 1, 1} : std::vector<int64_t>{-1, 1};
    Value* factor = builder_.attribute(plain.factors.reshape(places));
    Value* sum32 = builder_.call("aten::to", sum, kFloat, false, false, c10::IValue());
    return codes(node, builder_.call("aten::round", builder_.call("aten::mul", sum32, factor)));
  }

  // As a convolution of images of height 1.
  Value* write_conv1d(const IntegerNode& node) {
    constexpr int64_t kHeight = 2;
    IntegerNode image = node;
    image.op = IntegerOp::kConv2d;
    image.codes = node.codes.unsqueeze(kHeight);
    Value* packed = builder_.attribute(weights_.pack(image));
    const char* name = has_relu(node) ? "quantized::conv2d_relu" : "quantized::conv2d";
    Value* x = builder_.call("aten::unsqueeze", values_[node.inputs[0]], kHeight);
    Value* y = builder_.call(name, x, packed, static_cast<double>(node.scale), int64_t{node.zero_point + kUint8Shift});
    return bounded(node, builder_.call("aten::squeeze", y, kHeight));
  }

  const IntegerNode& input_node(const IntegerNode& node, size_t i) const { return graph_.nodes[node.inputs[i]]; }

  Value* scaled(Value* value, float factor) { return builder_.call("aten::mul", value, static_cast<double>(factor)); }

  // The codes of node `index`, less the zero point.
  Value* steps(int64_t index) {
    Value* codes = builder_.call("aten::int_repr", values_[index]);
    const int64_t zero_point = graph_.nodes[index].zero_point + kUint8Shift;
    return builder_.call("aten::sub", builder_.call("aten::to", codes, kFloat, false, false, c10::IValue()), zero_point,
                         int64_t{1});
  }

  Value* floats(int64_t index) {
    const IntegerNode& node = graph_.nodes[index];
    return node.gives_floats() ? values_[index] : scaled(steps(index), node.scale);
  }

  // Whole steps from the zero point as codes.
  Value* codes(const IntegerNode& node, Value* steps) {
    const auto code = [](int32_t value) { return static_cast<double>(value + kUint8Shift); };
    Value* shifted = builder_.call("aten::add", steps, code(node.zero_point), int64_t{1});
    Value* bounded = builder_.call("aten::hardtanh", shifted, code(node.clamp_min), code(node.clamp_max));
    return quantized(node, builder_.call("aten::to", bounded, kByte, false, false, c10::IValue()));
  }

  Value* quantized(const IntegerNode& node, Value* codes) {
    return builder_.call("aten::_make_per_tensor_quantized_tensor", codes, static_cast<double>(node.scale),
                         int64_t{node.zero_point + kUint8Shift});
  }

  static bool has_relu(const IntegerNode& node) { return node.clamp_min == node.zero_point && node.clamp_min > -128; }

  // ReLU6's upper bound and the ends of a grid of fewer bits, where uint8 goes beyond them. A bound is given as the value
  // of its code, so that no runtime's rounding can move it. QNNPACK's clamp mixes up the elements of a channels-last
  // tensor (torch 2.13), which is what convolutions return: it gets a copy in the other order.
  Value* bounded(const IntegerNode& node, Value* value) {
    const bool below = node.clamp_min > -128 && !has_relu(node);
    if (node.clamp_max == 127 && !below) {
      return value;
    }
    const auto value_of = [&](int32_t code) { return static_cast<double>(code - node.zero_point) * node.scale; };
    return builder_.call("aten::hardtanh", builder_.call("aten::contiguous", value), value_of(node.clamp_min),
                         value_of(node.clamp_max));
  }

  const IntegerGraph& graph_;
  const TargetProfile& qnnpack_ = target_profile("qnnpack");
  PackedWeights weights_;
  SharedStorage tables_;
  TorchScriptBuilder builder_;
  FloatOperations operations_;
  std::vector<Value*> values_;
};

// Codes must be equal; floats that a network ends in depend on how sums are divided.
bool computes(const IntegerNode& last, const at::Tensor& result, const IntegerResult& expected) {
  if (last.gives_floats()) {
    const double largest = expected.values.abs().max().item<double>();
    return (result - expected.values).abs().max().item<double>() <= 1e-4 * std::max(largest, 1e-6);
  }
  return (result / last.scale).round().to(at::kInt).equal(expected.codes.to(at::kInt) - last.zero_point);
}

}  // namespace

SavedFile save_ptl(const IntegerGraph& graph, const std::string& path, const SaveOptions& options) {
  TORCH_CHECK_VALUE(!graph.nodes.empty(), "torchslim::save_ptl: the graph is empty");
  check_save(path, ".ptl", graph.nodes.front().shape, options);
  require_fit(graph, "qnnpack", "torchslim::save_ptl");
  const at::Tensor sample = int8_sample(graph);
  const IntegerResult expected = run_integer(graph, sample);
  std::string bytes;
  {
    const QnnpackGuard engine;
    const QuietQuantizedTensors quiet;
    const std::string manifest = int8_manifest(kPtlFormat, graph, options, expected);
    bytes = with_bytecode(Int8Writer(graph).serialize({{kManifestName, manifest}}), options);
  }
  TORCH_CHECK(computes(graph.nodes.back(), run_bytes(bytes, sample), expected), "torchslim::save_ptl: ", path,
              " was not written: it does not compute what the integer reference computes; ",
              "this is an error of torchslim on this machine, please report it");
  return write_ptl(bytes, path, "int8");
}

}  // namespace torchslim::deploy
