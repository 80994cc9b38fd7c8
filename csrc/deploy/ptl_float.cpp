// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/graph/fold.h>

#include "deploy/ptl_file.h"

namespace torchslim::deploy {
namespace {

using graph::Node;
using graph::OpKind;

constexpr int64_t kAlignment = 16;  // floats: a cache line, where kernels like their weights to begin

/// Writes a float graph as calls of aten:: operators.
class FloatWriter {
 public:
  explicit FloatWriter(const graph::Graph& graph) : storage_(storage_size(graph), at::kFloat) {
    for (const Node& node : graph.nodes) {
      values_.push_back(write(node));
    }
    builder_.finish(values_.back());
  }

  std::string serialize(const std::unordered_map<std::string, std::string>& extra) const {
    return builder_.serialize(extra);
  }

 private:
  using Value = TorchScriptBuilder::Value;

  static int64_t padded(int64_t numel) { return (numel + kAlignment - 1) / kAlignment * kAlignment; }

  static int64_t storage_size(const graph::Graph& graph) {
    int64_t size = 0;
    for (const Node& node : graph.nodes) {
      for (const graph::NamedTensor& tensor : {node.weight, node.bias}) {
        size += tensor.defined() ? padded(tensor.value.numel()) : 0;
      }
    }
    return size;
  }

  Value* stored(const at::Tensor& tensor) {
    const at::Tensor place = storage_.take(padded(tensor.numel())).narrow(0, 0, tensor.numel()).view(tensor.sizes());
    place.copy_(tensor.detach());
    return builder_.attribute(place);
  }

  static std::vector<int64_t> list(const std::array<int64_t, 2>& pair) { return {pair[0], pair[1]}; }

  static std::vector<int64_t> width(const std::array<int64_t, 2>& pair) { return {pair[1]}; }

  Value* write(const Node& node) {
    const graph::Window& w = node.window;
    const auto input = [&](size_t i) { return values_[node.inputs[i]]; };
    switch (node.kind) {
      case OpKind::kInput:
        return builder_.input();
      case OpKind::kConv2d: {
        Value* weight = stored(node.weight.value);
        return builder_.call("aten::conv2d", input(0), weight, bias(node), list(w.stride), list(w.padding),
                             list(w.dilation), w.groups);
      }
      case OpKind::kConv1d: {
        Value* weight = stored(node.weight.value);
        return builder_.call("aten::conv1d", input(0), weight, bias(node), width(w.stride), width(w.padding),
                             width(w.dilation), w.groups);
      }
      case OpKind::kConvTranspose1d: {
        Value* weight = stored(node.weight.value);
        return builder_.call("aten::conv_transpose1d", input(0), weight, bias(node), width(w.stride), width(w.padding),
                             width(w.output_padding), w.groups, width(w.dilation));
      }
      case OpKind::kConvTranspose2d: {
        Value* weight = stored(node.weight.value);
        return builder_.call("aten::conv_transpose2d", input(0), weight, bias(node), list(w.stride), list(w.padding),
                             list(w.output_padding), w.groups, list(w.dilation));
      }
      case OpKind::kLinear: {
        Value* weight = stored(node.weight.value);
        return builder_.call("aten::linear", input(0), weight, bias(node));
      }
      case OpKind::kRelu:
        return builder_.call("aten::relu", input(0));
      case OpKind::kRelu6:
        return builder_.call("aten::hardtanh", input(0), 0.0, 6.0);
      case OpKind::kAdd:
        return builder_.call("aten::add", input(0), input(1));
      case OpKind::kMaxPool2d:
        return builder_.call("aten::max_pool2d", input(0), list(w.kernel), list(w.stride), list(w.padding),
                             list(w.dilation), w.ceil_mode);
      case OpKind::kAvgPool2d:
        return builder_.call("aten::avg_pool2d", input(0), list(w.kernel), list(w.stride), list(w.padding), w.ceil_mode,
                             w.count_include_pad, c10::IValue());
      case OpKind::kGlobalAvgPool:
        return builder_.call("aten::adaptive_avg_pool2d", input(0), std::vector<int64_t>{1, 1});
      case OpKind::kFlatten:
        return builder_.call("aten::flatten", input(0), int64_t{1}, int64_t{-1});
      case OpKind::kMul:
        return builder_.call("aten::mul", input(0), input(1));
      case OpKind::kBatchNorm2d:
      case OpKind::kFakeQuantize:  // folded and refused before
      case OpKind::kConcat:
      case OpKind::kAten:
        break;
    }
    TORCH_CHECK_VALUE(false, "torchslim::save_float_ptl: layer '", node.layer, "': the operation ",
                      node.call ? node.call->op : graph::to_string(node.kind),
                      " cannot be written to a .ptl file yet; leave it outside the saved model");
  }

  torch::jit::NamedValue bias(const Node& node) {
    return node.bias.defined() ? torch::jit::NamedValue(stored(node.bias.value))
                               : torch::jit::NamedValue(c10::IValue());
  }

  SharedStorage storage_;
  TorchScriptBuilder builder_;
  std::vector<Value*> values_;
};

void check_float(const graph::Graph& graph) {
  TORCH_CHECK_VALUE(!graph.nodes.empty() && graph.nodes[0].kind == OpKind::kInput,
                    "torchslim::save_float_ptl: the graph must begin with its input");
  for (const Node& node : graph.nodes) {
    TORCH_CHECK_VALUE(node.kind != OpKind::kFakeQuantize && !node.weight_grid,
                      "torchslim::save_float_ptl: ", node.layer,
                      " is fake-quantised; use save, which writes such a model in int8");
    for (const graph::NamedTensor* tensor : {&node.weight, &node.bias, &node.running_mean, &node.running_var}) {
      TORCH_CHECK_VALUE(!tensor->defined() || tensor->value.isfinite().all().item<bool>(),
                        "torchslim::save_float_ptl: ", node.layer, ": ", tensor->name, " holds NaN or infinity");
    }
  }
}

std::string float_manifest(const graph::Graph& graph, const SaveOptions& options, const at::Tensor& sample_output) {
  return manifest_head("float", graph.nodes[0].shape, options)
      .add("sample", json::Object()
                         .add("input", json::quote("x[i] = ((89 * i + 7) % 256 - 128) / 128"))
                         .add("output", json::array(c10::ArrayRef<float>(sample_output.const_data_ptr<float>(),
                                                                         sample_output.numel())))
                         .text())
      .text(0);
}

}  // namespace

SavedFile save_float_ptl(const graph::Graph& graph, const std::string& path, const SaveOptions& options) {
  check_float(graph);
  const std::vector<int64_t>& shape = graph.nodes[0].shape;
  check_save(path, shape, options);
  const FloatWriter writer(graph::fold_batch_norms(graph));
  const at::Tensor output = run_bytes(writer.serialize({}), sample_image(shape, 1.0F / 128, 128)).contiguous();
  const std::string manifest = float_manifest(graph, options, output);
  return write_ptl(writer.serialize({{kManifestName, manifest}}), path, "float");
}

}  // namespace torchslim::deploy
