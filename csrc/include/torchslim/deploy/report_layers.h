// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace torchslim::deploy {

/// Upper ends of the bins of `LayerReport::steps`: 0, 1, 2, 3 to 4, 5 to 8, 9 to 16; one more bin holds all above.
constexpr std::array<int64_t, 6> kStepBins{0, 1, 2, 4, 8, 16};

/// What one operation of an integer graph costs, and how far integers take its result from floats.
struct TORCHSLIM_API LayerReport {
  std::string layer;
  std::string op;           // of `IntegerOp`, such as "conv2d"
  std::string arithmetic;   // of a .ptl file there: "int8", "float on codes" or "float"; see `fit_target`
  int64_t parameters = 0;   // elements of weight and bias
  int64_t macs = 0;         // multiply-accumulates for one image
  int64_t bytes = 0;        // in a .ptl file: 1 a code, 12 an output channel (transposed: 8), 4 a float
  int64_t weight_bits = 0;  // that hold the weight's codes; 32 where the layer is in float, 0 without a weight
  /// How many elements of the result are 0, 1, 2, ... steps of their grid away from the float network; see `kStepBins`.
  /// Empty where the result is floats or has no counterpart there.
  std::vector<int64_t> steps;
  double mean_steps = 0;  // mean distance, not rounded
  double max_steps = 0;   // largest distance, not rounded
};

/// Lowers the captured graph of a prepared model, runs it on `images` in the integer reference, runs the same graph in
/// float with no grid at all, and compares both behind each operation:
///   distance = |scale * (code - zero_point) - float value| / scale
/// This is what quantisation does to a network, operation by operation; errors of earlier operations are in it.
///   graph   as `lower` takes it
///   images  float32 (N, ...), N > 0, of the example's shape; finite
/// Returns a row for each node of `lower(graph)`, in order. The result does not depend on the number of threads.
/// Throws what `lower` and `run_integer` throw.
TORCHSLIM_API std::vector<LayerReport> report_layers(const graph::Graph& graph, const at::Tensor& images);

}  // namespace torchslim::deploy
