// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/onnx.h>
#include <torchslim/deploy/ptl.h>

#include <algorithm>

#include "deploy/ptl_file.h"

namespace torchslim::deploy {

SavedFile save(const IntegerGraph& graph, const std::string& path, const SaveOptions& options) {
  return ends_with(path, ".onnx") ? save_onnx(graph, path, options) : save_ptl(graph, path, options);
}

SavedFile save(const graph::Graph& graph, const std::string& path, const SaveOptions& options) {
  const bool quantised = std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const graph::Node& node) {
    return node.kind == graph::OpKind::kFakeQuantize || node.weight_grid.has_value();
  });
  const bool onnx = ends_with(path, ".onnx");
  check_save(path, onnx ? ".onnx" : ".ptl", graph.nodes.at(0).shape, options);  // before the work of lowering
  if (onnx) {
    return quantised ? save_onnx(lower(graph), path, options) : save_float_onnx(graph, path, options);
  }
  return quantised ? save_ptl(lower(graph), path, options) : save_float_ptl(graph, path, options);
}

}  // namespace torchslim::deploy
