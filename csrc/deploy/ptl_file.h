// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/deploy/ptl.h>

#include <string>

#include "deploy/json.h"
#include "deploy/torchscript_builder.h"

// What the writers of int8 and float files share.
namespace torchslim::deploy {

/// Returns the image of a manifest's sample, shape (1, ...) of `shape`: element i is step · (((89·i + 7) mod 256) -
/// zero_point), i counting over the whole image.
at::Tensor sample_image(const std::vector<int64_t>& shape, float step, int32_t zero_point);

/// Returns the members of a manifest that every kind of file has. `shape` is the input's.
json::Object manifest_head(const std::string& kind, const std::vector<int64_t>& shape, const SaveOptions& options);

/// Throws c10::ValueError unless `path` ends in ".ptl", or if `options` do not fit `shape`.
void check_save(const std::string& path, const std::vector<int64_t>& shape, const SaveOptions& options);

/// Returns the bytes of a file. Throws core::FileError if it cannot be read.
std::string read_file(const std::string& path);

/// Puts the bytes of a file in place and describes it.
SavedFile write_ptl(const std::string& bytes, const std::string& path, const std::string& kind);

/// Runs the bytes of a file on a batch with QNNPACK.
at::Tensor run_bytes(const std::string& bytes, const at::Tensor& images);

constexpr const char* kManifestName = "manifest.json";

}  // namespace torchslim::deploy
