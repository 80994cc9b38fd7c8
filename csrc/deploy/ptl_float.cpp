// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/graph/fold.h>

#include "deploy/float_operations.h"
#include "deploy/ptl_file.h"

namespace torchslim::deploy {
namespace {

using graph::Node;
using graph::OpKind;

std::vector<const Node*> pointers(const graph::Graph& graph) {
  std::vector<const Node*> nodes;
  for (const Node& node : graph.nodes) {
    nodes.push_back(&node);
  }
  return nodes;
}

/// Writes a float graph as calls of aten:: operators.
class FloatWriter {
 public:
  explicit FloatWriter(const graph::Graph& graph) : operations_(builder_, pointers(graph)) {
    std::vector<TorchScriptBuilder::Value*> values;
    for (const Node& node : graph.nodes) {
      std::vector<TorchScriptBuilder::Value*> inputs;
      for (const int64_t input : node.inputs) {
        inputs.push_back(values[input]);
      }
      values.push_back(node.kind == OpKind::kInput ? builder_.input() : operations_.write(node, inputs));
    }
    builder_.finish(values.back());
  }

  std::string serialize(const std::unordered_map<std::string, std::string>& extra) const {
    return builder_.serialize(extra);
  }

 private:
  TorchScriptBuilder builder_;
  FloatOperations operations_;
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
