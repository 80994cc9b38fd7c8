// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/graph/fold.h>

#include "deploy/float_operations.h"
#include "deploy/manifest.h"
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

}  // namespace

SavedFile save_float_ptl(const graph::Graph& graph, const std::string& path, const SaveOptions& options) {
  check_float("torchslim::save_float_ptl", graph);
  const std::vector<int64_t>& shape = graph.nodes[0].shape;
  check_save(path, ".ptl", shape, options);
  const graph::Graph folded = graph::fold_batch_norms(graph);
  const FloatWriter writer(folded);
  const at::Tensor output = run_bytes(writer.serialize({}), float_sample(shape)).contiguous();
  const std::string manifest = float_manifest(kPtlFormat, folded, options, output);
  return write_ptl(with_bytecode(writer.serialize({{kManifestName, manifest}}), options), path, "float");
}

}  // namespace torchslim::deploy
