// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/deploy/ptl.h>

#include <string>

#include "deploy/torchscript_builder.h"

// What the writers of int8 and float files share.
namespace torchslim::deploy {

bool ends_with(const std::string& text, const std::string& end);

/// Throws c10::ValueError unless `path` ends in `suffix`, or if `options` do not fit `shape`.
void check_save(const std::string& path, const char* suffix, const std::vector<int64_t>& shape,
                const SaveOptions& options);

/// Throws c10::ValueError if `options.mean` and `.std` do not fit an input of `shape`.
void check_normalisation(const std::vector<int64_t>& shape, const SaveOptions& options);

/// Throws c10::ValueError, with `who` in front, unless `graph` is of a float model with finite tensors.
void check_float(const char* who, const graph::Graph& graph);

/// Returns the bytes of a file. Throws core::FileError if it cannot be read.
std::string read_file(const std::string& path);

/// Returns the bytes of a file with the bytecode that was asked for.
std::string with_bytecode(const std::string& bytes, const SaveOptions& options);

/// Puts the bytes of a file in place and describes it.
SavedFile write_ptl(const std::string& bytes, const std::string& path, const std::string& kind);

/// Runs the bytes of a file on a batch with QNNPACK.
at::Tensor run_bytes(const std::string& bytes, const at::Tensor& images);

constexpr const char* kManifestName = "manifest.json";
constexpr const char* kPtlFormat = "torchslim.ptl/1";

}  // namespace torchslim::deploy
