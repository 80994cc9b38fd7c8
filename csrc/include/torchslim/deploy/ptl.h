// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/graph/graph.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace torchslim::deploy {

/// What a file says about itself beyond its network; goes into its manifest.
struct TORCHSLIM_API SaveOptions {
  /// How the caller must normalise an image before it runs the file: (pixel - mean) / std per channel, pixels in [0, 1].
  /// Empty: the model takes pixels in [0, 1] or whatever it was trained on, unchanged. Not computed by the file.
  std::vector<double> mean;
  std::vector<double> std;
  /// Names of the outputs, in order; may be empty.
  std::vector<std::string> labels;
  /// Of .onnx files: the version of the operators, 13 to 21. Empty: the lowest that has all operators of the network;
  /// weights whose codes fit in 4 bits are then stored in 4, which takes 21.
  std::optional<int64_t> opset;
  /// Of .ptl files: an older version of the bytecode, 4 to 7, for runtimes before torch 1.12 (1.10 and 1.11 load 7, 1.9 loads
  /// 5). Empty: this LibTorch's own, 8. The operators stay the same: see `check`.
  std::optional<int64_t> bytecode;
};

/// A file that was written.
struct TORCHSLIM_API SavedFile {
  std::string path;
  std::string kind;     // "int8" or "float"
  int64_t bytes = 0;    // on disk
  int64_t records = 0;  // entries of the zip archive of a .ptl file, tensors of an .onnx file
};

/// Throws c10::ValueError unless `path` ends in a suffix that can be written (".ptl", ".onnx"); names those that cannot.
TORCHSLIM_API void check_suffix(const std::string& path);

/// Writes `graph` as a file for PyTorch Mobile's lite interpreter that computes in int8 with the QNNPACK engine. Its
/// outputs are those of `run_integer`, to the last bit; one sample is compared before the file is put in place.
///   path  ends in ".ptl"; written whole or not at all (core/atomic_file.h)
/// Any batch size runs. `extra/manifest.json` in the file says what goes in and comes out. The bytes depend on `graph`
/// and `options` alone. Throws c10::ValueError for another suffix, core::FileError if the file cannot be written.
TORCHSLIM_API SavedFile save_ptl(const IntegerGraph& graph, const std::string& path, const SaveOptions& options = {});

/// Writes a float model the same way: batch norms folded into convolutions, plain aten operators.
///   graph  captured from a float model in eval mode; without fake_quantize
TORCHSLIM_API SavedFile save_float_ptl(const graph::Graph& graph, const std::string& path,
                                       const SaveOptions& options = {});

/// Writes a captured model by the suffix of `path` (".ptl", ".onnx"): a prepared model in int8 (`lower`, `save_ptl`,
/// `save_onnx`), a float model in float. Throws c10::ValueError for a suffix that is not available, naming those that are.
TORCHSLIM_API SavedFile save(const graph::Graph& graph, const std::string& path, const SaveOptions& options = {});

/// Writes an integer graph by the suffix of `path`.
TORCHSLIM_API SavedFile save(const IntegerGraph& graph, const std::string& path, const SaveOptions& options = {});

}  // namespace torchslim::deploy
