// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/graph/graph.h>

#include <string>

namespace torchslim::deploy {

/// Writes `graph` as an ONNX file in QDQ form: each operation stands between DequantizeLinear and QuantizeLinear, from which
/// runtimes make integer operations. Activations are uint8 per tensor; weights int8, or int4, per output channel with zero
/// point 0; biases int32 on the grid input scale · weight scale. The grids are those of `graph`.
///   path  ends in ".onnx"; written whole or not at all
/// Runtimes round sums as they see fit: expect the integer reference, now and then a step beside it at each layer.
/// The metadata "torchslim" is the manifest. Throws c10::ValueError for another suffix, an operation without an ONNX
/// operator (with its layer), an opset that lacks one; core::FileError if the file cannot be written.
TORCHSLIM_API SavedFile save_onnx(const IntegerGraph& graph, const std::string& path, const SaveOptions& options = {});

/// Writes a float model the same way: batch norms folded into convolutions, float32 throughout.
///   graph  captured from a float model in eval mode; without fake_quantize
TORCHSLIM_API SavedFile save_float_onnx(const graph::Graph& graph, const std::string& path,
                                        const SaveOptions& options = {});

}  // namespace torchslim::deploy
