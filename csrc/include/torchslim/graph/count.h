// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <cstdint>
#include <string>
#include <vector>

namespace torchslim::graph {

/// What one convolution or linear layer costs.
struct TORCHSLIM_API LayerCount {
  std::string layer;
  std::string weight;  // name of its weight; a weight used by two layers is listed, and counted, twice
  OpKind kind = OpKind::kConv2d;
  int64_t macs = 0;     // multiply-accumulates for one image
  int64_t weights = 0;  // elements of the weight
  int64_t zeros = 0;    // of those, how many are 0 as they run: after rounding, if the weight has a grid
};

/// Counts every convolution and linear layer of `graph`, in order, for the captured image size.
TORCHSLIM_API std::vector<LayerCount> count_layers(const Graph& graph);

/// Returns the multiply-accumulates of `graph` for one image: convolutions and linear layers, zeros included.
TORCHSLIM_API int64_t count_macs(const Graph& graph);

}  // namespace torchslim::graph
