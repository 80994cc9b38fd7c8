// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/manifest.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/irange.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/version.h>

#include <set>

#include "deploy/json.h"
#include "deploy/layer_cost.h"
#include "deploy/onnx_file.h"
#include "deploy/ptl_file.h"

namespace torchslim::deploy {
namespace {

// Image shapes as JSON, with null for the batch size where any runs.
std::string batch_shape(const std::string& format, const std::vector<int64_t>& shape) {
  std::string text = "[" + (format == kPteFormat ? json::number(shape[0]) : "null");
  for (const auto i : c10::irange(size_t{1}, shape.size())) {
    text += "," + json::number(shape[i]);
  }
  return text + "]";
}

std::string normalisation(const SaveOptions& options) {
  if (options.mean.empty()) {
    return "null";
  }
  return json::Object()
      .add("formula", json::quote("(pixel - mean) / std, pixels in [0, 1], by the caller"))
      .add("mean", json::array(options.mean))
      .add("std", json::array(options.std))
      .text();
}

// Element i is step · (((89·i + 7) mod 256) - zero_point), i counting over the whole image.
at::Tensor sample_image(const std::vector<int64_t>& shape, float step, int32_t zero_point) {
  std::vector<int64_t> one = shape;
  one[0] = 1;
  at::Tensor image = at::empty(one, at::TensorOptions().dtype(at::kFloat));
  auto* pixels = image.mutable_data_ptr<float>();
  for (const auto i : c10::irange(image.numel())) {
    pixels[i] = step * static_cast<float>((89 * i + 7) % 256 - zero_point);
  }
  return image;
}

json::Object manifest_head(const std::string& format, const std::string& kind, const std::vector<int64_t>& shape,
                           const SaveOptions& options) {
  json::Object head;
  head.add("format", json::quote(format))
      .add("kind", json::quote(kind))
      .add("torchslim", json::quote(TORCHSLIM_VERSION))
      .add("torch", json::quote(TORCHSLIM_TORCH_VERSION));
  if (kind == "int8" && format == kPtlFormat) {
    head.add("engine", json::quote("qnnpack"));
  }
  head.add("input", json::Object()
                        .add("layout", json::quote(shape.size() == 4 ? "NCHW" : "N..."))
                        .add("dtype", json::quote("float32"))
                        .add("shape", batch_shape(format, shape))
                        .add("normalisation", normalisation(options))
                        .text());
  if (!options.labels.empty()) {
    std::string labels;
    for (const std::string& label : options.labels) {
      labels += (labels.empty() ? "" : ",") + json::quote(label);
    }
    head.add("labels", "[" + labels + "]");
  }
  return head;
}

// The numbers that a node's result ends in: its grid, or that it is floats.
std::string grid_text(const IntegerNode& node) {
  if (node.gives_floats()) {
    return json::quote("float");
  }
  return json::Object()
      .add("scale", json::number(node.scale))
      .add("zero_point", json::number(node.zero_point + kUint8Shift))
      .text();
}

template <typename T>
std::string numbers(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return json::array(c10::ArrayRef<T>(flat.const_data_ptr<T>(), flat.numel()));
}

std::string sample_text(const IntegerGraph& graph, const IntegerResult& expected) {
  const bool on_grid = !graph.nodes.front().gives_floats();
  json::Object sample;
  sample.add("input", json::quote(on_grid ? "x[i] = scale * ((89 * i + 7) % 256 - zero_point) of the input grid"
                                          : "x[i] = ((89 * i + 7) % 256 - 128) / 128"));
  if (graph.nodes.back().gives_floats()) {
    sample.add("output", numbers<float>(expected.values));
  } else {
    sample.add("output_uint8", numbers<int32_t>(expected.codes.to(at::kInt) + kUint8Shift));
  }
  return sample.text();
}

std::string layer_text(const std::string& layer, const char* op, const at::Tensor& weight, int64_t bytes) {
  const std::string sizes = weight.defined() ? json::array(weight.sizes()) : "[]";
  return "[" + json::quote(layer) + "," + json::quote(op) + "," + sizes + "," + json::number(bytes) + "]";
}

const char* op_name(const graph::Node& node) { return node.call ? node.call->op.c_str() : to_string(node.kind); }

// [[layer, operation, shape of the weight, bytes], ...]; short, because it is in the file that it counts.
class LayerList {
 public:
  void add(const graph::Node& node) {
    // A file holds a tensor once, whoever reads it.
    int64_t bytes = 0;
    const auto count = [&](const at::Tensor& tensor) {
      bytes += tensor.defined() && seen_.insert(tensor.unsafeGetTensorImpl()).second ? 4 * tensor.numel() : 0;
    };
    count(node.weight.value);
    count(node.bias.value);
    for (const c10::IValue& argument : node.call ? node.call->arguments : std::vector<c10::IValue>()) {
      count(argument.isTensor() ? argument.toTensor() : at::Tensor());
    }
    append(node.layer, op_name(node), node.weight.value, bytes);
  }

  void add(const IntegerNode& node, bool in_pte) {
    if (node.gives_floats() && node.float_node != nullptr) {
      add(*node.float_node);
    } else {
      append(node.layer, to_string(node.op), node.codes, in_pte ? pte_bytes(node) : ptl_bytes(node));
    }
  }

  std::string text() const { return "[" + text_ + "]"; }

 private:
  void append(const std::string& layer, const char* op, const at::Tensor& weight, int64_t bytes) {
    if (bytes > 0) {
      text_ += (text_.empty() ? "" : ",") + layer_text(layer, op, weight, bytes);
    }
  }

  std::string text_;
  std::set<const c10::TensorImpl*> seen_;
};

}  // namespace

at::Tensor float_sample(const std::vector<int64_t>& shape) { return sample_image(shape, 1.0F / 128, 128); }

at::Tensor int8_sample(const IntegerGraph& graph) {
  const IntegerNode& input = graph.nodes.front();
  return input.gives_floats() ? float_sample(input.shape)
                              : sample_image(input.shape, input.scale, input.zero_point + kUint8Shift);
}

std::string float_manifest(const std::string& format, const graph::Graph& graph, const SaveOptions& options,
                           const at::Tensor& output) {
  json::Object manifest = manifest_head(format, "float", graph.nodes.front().shape, options);
  if (format != kOnnxFormat) {
    LayerList layers;
    for (const graph::Node& node : graph.nodes) {
      layers.add(node);
    }
    manifest.add("layers", layers.text());
  }
  return manifest
      .add("sample", json::Object()
                         .add("input", json::quote("x[i] = ((89 * i + 7) % 256 - 128) / 128"))
                         .add("output", numbers<float>(output))
                         .text())
      .text(0);
}

std::string int8_manifest(const std::string& format, const IntegerGraph& graph, const SaveOptions& options,
                          const IntegerResult& expected) {
  const WeightCount count = count_weights(graph);
  json::Object manifest = manifest_head(format, "int8", graph.nodes.front().shape, options);
  if (format != kOnnxFormat) {
    LayerList layers;
    for (const IntegerNode& node : graph.nodes) {
      layers.add(node, format == kPteFormat);
    }
    manifest.add("layers", layers.text());
  }
  return manifest.add("input_grid_uint8", grid_text(graph.nodes.front()))
      .add("output_grid_uint8", grid_text(graph.nodes.back()))
      .add("weights", json::Object()
                          .add("codes", json::number(count.total))
                          .add("nonzero", json::number(count.nonzero))
                          .add("grid", json::quote("int8 [-127, 127], per output channel"))
                          .text())
      .add("crc32", json::quote(checksum(graph)))
      .add("sample", sample_text(graph, expected))
      .text(0);
}

std::string pte_manifest(const graph::Graph& graph, const SaveOptions& options) {
  const std::vector<int64_t>& shape = graph.nodes.front().shape;
  check_normalisation(shape, options);
  return float_manifest(kPteFormat, graph, options, graph::run_float(graph, float_sample(shape)));
}

std::string pte_manifest(const IntegerGraph& graph, const SaveOptions& options) {
  check_normalisation(graph.nodes.front().shape, options);
  return int8_manifest(kPteFormat, graph, options, run_integer(graph, int8_sample(graph)));
}

}  // namespace torchslim::deploy
