// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/deploy/onnx.h>
#include <torchslim/graph/fold.h>
#include <torchslim/graph/interpret.h>

#include "deploy/manifest.h"
#include "deploy/onnx_file.h"
#include "deploy/onnx_operations.h"

namespace torchslim::deploy {

SavedFile save_float_onnx(const graph::Graph& graph, const std::string& path, const SaveOptions& options) {
  check_float("torchslim::save_float_onnx", graph);
  const std::vector<int64_t>& shape = graph.nodes[0].shape;
  check_save(path, ".onnx", shape, options);
  const graph::Graph folded = graph::fold_batch_norms(graph);
  const std::string manifest =
      float_manifest(kOnnxFormat, folded, options, graph::run_float(folded, float_sample(shape)));
  return write_onnx(path, "float", manifest, shape, options, [&](OnnxBuilder& builder) {
    OnnxOperations operations(builder, shape[0]);
    std::vector<OnnxValue> values;
    for (const graph::Node& node : folded.nodes) {
      std::vector<OnnxValue> inputs;
      for (const int64_t input : node.inputs) {
        inputs.push_back(values[input]);
      }
      const bool is_input = node.kind == graph::OpKind::kInput;
      values.push_back({is_input ? builder.input() : operations.write(node, inputs), node.shape});
    }
    builder.finish(values.back().name, values.back().shape);
  });
}

}  // namespace torchslim::deploy
