// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace torchslim::deploy {

/// What an integer graph can hold. Batch norm and activations are folded away. What has no integer form is a `kFloat`
/// node: it reads codes as floats, and a `kQuantize` node brings its result back to codes.
enum class IntegerOp {
  kInput,          // rounds the float image to its grid
  kConv2d,         // int32 sums, requantised per output channel
  kLinear,         // the same over features
  kAdd,            // two inputs of one shape, each with its own grid
  kClamp,          // an activation that stands alone; keeps its input's grid
  kMaxPool2d,      // copies codes
  kAvgPool2d,      // keeps its input's grid
  kGlobalAvgPool,  // keeps its input's grid; (N, C, H, W) -> (N, C, 1, 1)
  kFlatten,        // copies codes; (N, ...) -> (N, features)
  kMul,            // two inputs, each with its own grid; broadcast
  kTable,          // a function of each code, such as hardswish, or the same value on another grid
  kMove,           // copies codes: reshape, slice, permute, concat, ...; what it fills in is the zero point
  kFloat,          // `float_node` on floats
  kQuantize,       // rounds floats to a grid
  kConv1d,         // as kConv2d, over (N, C, L)
  kConvTranspose1d,
  kConvTranspose2d,
};

/// Whether `op` is a transposed convolution.
TORCHSLIM_API bool is_transposed(IntegerOp op);

/// Returns the name of `op`, such as "conv2d".
TORCHSLIM_API const char* to_string(IntegerOp op);

/// One operation on int8 codes. Fields that its op does not use keep their defaults.
struct TORCHSLIM_API IntegerNode {
  IntegerOp op = IntegerOp::kInput;
  std::string layer;            // dotted name of the module that it came from
  std::vector<int64_t> inputs;  // indices of earlier nodes
  std::vector<int64_t> shape;   // of the result, for the example input
  int64_t graph_node = -1;  // whose result it is in the graph that was lowered; -1: none's. Copies by pickle forget it

  float scale = 1.0F;        // of the result: value = scale * (code - zero_point)
  int32_t zero_point = 0;    // in [-128, 127]
  int32_t clamp_min = -128;  // the smallest and largest code of the result: ReLU and ReLU6 live here
  int32_t clamp_max = 127;

  graph::Window window;  // convolutions, pools
  /// int8 in [-127, 127]: convolutions, transposed ones too, (O, I/groups, kh, kw), in one dimension without kh; linear (O, I).
  at::Tensor codes;
  at::Tensor weight_scale;  // float32 (O): weight = weight_scale * codes
  at::Tensor bias;          // float32 (O): on the grid input scale * weight_scale, as files carry it
  at::Tensor bias_codes;    // int32 (O): the same bias as runtimes read it back

  at::Tensor table;                               // int8 (256): the code for each code from -128 on
  std::shared_ptr<const graph::Node> float_node;  // float, move: what is computed; table: of what, if known

  /// Whether the result is floats and not codes.
  bool gives_floats() const { return op == IntegerOp::kFloat; }
};

/// Returns what the sums of `node`, a layer with a weight, are multiplied by: float32 (O),
///   (weight scale * scale of `input`) * (1 / scale)
/// in QNNPACK's order; any other is off by one in some outputs.
TORCHSLIM_API at::Tensor requantization_factors(const IntegerNode& node, const IntegerNode& input);

/// A trained network in integers: node 0 is the input, the last node is the result. `lower` makes it, `run_integer` runs
/// it, `save_ptl` writes it.
struct TORCHSLIM_API IntegerGraph {
  std::vector<IntegerNode> nodes;
};

/// How many weights a graph holds.
struct TORCHSLIM_API WeightCount {
  int64_t total = 0;    // int8 codes of every convolution and linear layer
  int64_t nonzero = 0;  // those that are not 0
  double sparsity() const { return total == 0 ? 0.0 : 1.0 - static_cast<double>(nonzero) / static_cast<double>(total); }
};

/// Counts the int8 codes of `graph`: what is zero here is zero in the file.
TORCHSLIM_API WeightCount count_weights(const IntegerGraph& graph);

/// Returns a checksum (CRC-32, eight hex digits) over every number of `graph` that decides an output.
TORCHSLIM_API std::string checksum(const IntegerGraph& graph);

/// Returns the graph as a readable table: number, op, layer, inputs, shape, grid, clamp.
TORCHSLIM_API std::string to_string(const IntegerGraph& graph);

}  // namespace torchslim::deploy
