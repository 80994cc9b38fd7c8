// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/deploy/integer_graph.h>

#include <string>
#include <vector>

namespace torchslim::deploy {

/// How a target computes an operation.
enum class Arithmetic {
  kInteger,       // a kernel of the target's on codes
  kFloatOnCodes,  // the target has none: dequantised, computed in float on whole numbers, quantised; the same bits
  kFloat,         // the operation has no integer form at all, or was kept in float
};

/// Returns "int8", "float on codes" or "float".
TORCHSLIM_API const char* to_string(Arithmetic arithmetic);

/// What a target makes of one operation of an integer graph.
struct TORCHSLIM_API LayerFit {
  std::string layer;
  std::string op;  // of `IntegerOp`, such as "conv2d"
  Arithmetic arithmetic = Arithmetic::kInteger;
  std::string problem;  // why the target cannot run it, with the numbers and the remedy; empty: it can
};

/// Returns the targets that `fit_target` knows: what runs .ptl, .onnx and .pte files.
///   "qnnpack"  .ptl: integer kernels for convolutions, linear layers, additions, pools and clamps
///   "onnx"     .onnx: between its quantisers each operation may run in integers; the runtime decides
///   "xnnpack"  .pte: as "onnx", but no transposed convolution with groups, and a layer's factor of requantisation,
///              input scale * weight scale / output scale, must lie in [2^-32, 256)
TORCHSLIM_API std::vector<std::string> known_targets();

/// Says for each operation of `graph`, in order, how `target` computes it and whether it can. The limits that all targets
/// share are `lower`'s. Throws c10::ValueError for an unknown target.
TORCHSLIM_API std::vector<LayerFit> fit_target(const IntegerGraph& graph, const std::string& target);

/// Throws c10::ValueError with the first problem that `fit_target` finds; `who` begins the message.
TORCHSLIM_API void require_fit(const IntegerGraph& graph, const std::string& target, const std::string& who);

}  // namespace torchslim::deploy
