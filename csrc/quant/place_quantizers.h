// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/graph/graph.h>
#include <torchslim/quant/layers.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

// Where the quantisers of a captured network go: `graph::operation_rules`, node by node.

namespace torchslim::quant::detail {

/// A quantiser to be made.
struct PlacedQuantizer {
  std::string path;   // dotted name of the module it becomes
  std::string layer;  // what messages call it
  Activation activation = Activation::kNone;
  LayerOptions options;
};

/// What becomes of one node. Numbers are indices; -1: none.
struct PlacedNode {
  std::string kind;         // of the rules
  std::string layer;        // dotted name that settings and messages call it by
  bool in_float = false;    // runs in float
  bool absorbed = false;    // part of an earlier node
  int64_t grid = -1;        // the quantiser whose grid the result is on
  bool owns_grid = false;   // whether that quantiser is behind this node
  int64_t border = -1;      // the quantiser that rounds a result in float, for who reads it on a grid
  int64_t batch_norm = -1;  // the node of the batch norm that is part of this one
  int64_t last = -1;        // the last of the nodes that are part of this one, or itself
  Activation activation = Activation::kNone;
};

struct Placement {
  std::vector<PlacedNode> nodes;  // one for each of the graph's
  std::vector<PlacedQuantizer> quantizers;
  std::vector<std::string> float_layers;  // that have a weight or no integer form
};

/// Returns where quantisers go.
///   leaf_layers  dotted names of modules that are one operation: their quantisers go beside them, those of functions into the
///                module that calls them
/// Throws c10::ValueError for a layer or kind of `options` that is not there.
TORCHSLIM_API Placement place_quantizers(const graph::Graph& graph, const std::set<std::string>& leaf_layers,
                                         const PrepareOptions& options);

/// Returns `parent`.`name`.
std::string joined(const std::string& parent, const std::string& name);

}  // namespace torchslim::quant::detail
