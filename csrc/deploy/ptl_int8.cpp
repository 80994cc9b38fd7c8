// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_empty_per_channel_affine_quantized.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/deploy/reference.h>

#include <algorithm>
#include <unordered_map>

#include "deploy/ptl_file.h"
#include "deploy/runtime_guards.h"

namespace torchslim::deploy {
namespace {

constexpr int64_t kQuint8 = 13;       // at::kQUInt8, as serialised programs write it
constexpr int32_t kUint8Shift = 128;  // int8 codes + 128 are QNNPACK's uint8 codes

c10::List<int64_t> int_list(const std::array<int64_t, 2>& pair) { return c10::List<int64_t>({pair[0], pair[1]}); }

c10::IValue call_operator(const char* name, torch::jit::Stack stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
  return std::move(stack.at(0));
}

/// All weights of a graph in four storages: each storage is one record of the file, whatever the number of layers.
class PackedWeights {
 public:
  explicit PackedWeights(const IntegerGraph& graph)
      : codes_(total(graph, &IntegerNode::codes), at::kChar),
        scales_(total(graph, &IntegerNode::weight_scale), at::kDouble),
        biases_(total(graph, &IntegerNode::bias), at::kFloat),
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

 private:
  static int64_t total(const IntegerGraph& graph, at::Tensor IntegerNode::*member) {
    int64_t numel = 0;
    for (const IntegerNode& node : graph.nodes) {
      numel += (node.*member).defined() ? (node.*member).numel() : 0;
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
  at::Tensor zero_points_;
};

/// Writes an integer graph as calls of quantized:: and aten:: operators.
class Int8Writer {
 public:
  explicit Int8Writer(const IntegerGraph& graph) : graph_(graph), weights_(graph) {
    for (const auto i : c10::irange(graph.nodes.size())) {
      values_.push_back(write(graph.nodes[i]));
    }
    builder_.finish(builder_.call("aten::dequantize", values_.back()));
  }

  std::string serialize(const std::unordered_map<std::string, std::string>& extra) const {
    return builder_.serialize(extra);
  }

 private:
  using Value = TorchScriptBuilder::Value;

  static std::vector<int64_t> list(const std::array<int64_t, 2>& pair) { return {pair[0], pair[1]}; }

  Value* write(const IntegerNode& node) {
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
      case IntegerOp::kMul:
      case IntegerOp::kTable:
      case IntegerOp::kMove:
      case IntegerOp::kFloat:
      case IntegerOp::kQuantize:
      case IntegerOp::kConv1d:
      case IntegerOp::kConvTranspose1d:
      case IntegerOp::kConvTranspose2d:
        break;
    }
    TORCH_CHECK_VALUE(false, "torchslim::save_ptl: layer '", node.layer, "': the operation ", to_string(node.op),
                      " cannot be written to a .ptl file yet; the integer reference runs it (quant.convert)");
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
  PackedWeights weights_;
  TorchScriptBuilder builder_;
  std::vector<Value*> values_;
};

std::string int8_manifest(const IntegerGraph& graph, const SaveOptions& options, const at::Tensor& sample_output) {
  const IntegerNode& first = graph.nodes.front();
  const IntegerNode& last = graph.nodes.back();
  const WeightCount count = count_weights(graph);
  const auto grid = [](const IntegerNode& node) {
    return json::Object()
        .add("scale", json::number(node.scale))
        .add("zero_point", json::number(node.zero_point + kUint8Shift))
        .text();
  };
  return manifest_head("int8", first.shape, options)
      .add("input_grid_uint8", grid(first))
      .add("output_grid_uint8", grid(last))
      .add("weights", json::Object()
                          .add("codes", json::number(count.total))
                          .add("nonzero", json::number(count.nonzero))
                          .add("grid", json::quote("int8 [-127, 127], per output channel"))
                          .text())
      .add("crc32", json::quote(checksum(graph)))
      .add("sample", json::Object()
                         .add("input", json::quote("x[i] = scale * ((89 * i + 7) % 256 - "
                                                   "zero_point) of the input grid"))
                         .add("output_uint8", json::array(c10::ArrayRef<int32_t>(
                                                  sample_output.const_data_ptr<int32_t>(), sample_output.numel())))
                         .text())
      .text(0);
}

}  // namespace

SavedFile save_ptl(const IntegerGraph& graph, const std::string& path, const SaveOptions& options) {
  TORCH_CHECK_VALUE(!graph.nodes.empty(), "torchslim::save_ptl: the graph is empty");
  const IntegerNode& input = graph.nodes.front();
  check_save(path, input.shape, options);
  const at::Tensor sample = sample_image(input.shape, input.scale, input.zero_point + kUint8Shift);
  const IntegerResult expected = run_integer(graph, sample);
  const at::Tensor uint8_codes = expected.codes.to(at::kInt) + kUint8Shift;
  std::string bytes;
  {
    const QnnpackGuard engine;
    const QuietQuantizedTensors quiet;
    bytes = Int8Writer(graph).serialize({{kManifestName, int8_manifest(graph, options, uint8_codes)}});
  }
  const IntegerNode& last = graph.nodes.back();
  const at::Tensor steps = (run_bytes(bytes, sample) / last.scale).round().to(at::kInt);
  TORCH_CHECK(steps.equal(expected.codes.to(at::kInt) - last.zero_point), "torchslim::save_ptl: ", path,
              " was not written: it does not compute what the integer reference computes; ",
              "this is an error of torchslim on this machine, please report it");
  return write_ptl(bytes, path, "int8");
}

}  // namespace torchslim::deploy
