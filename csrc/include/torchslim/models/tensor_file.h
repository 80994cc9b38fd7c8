// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/ordered_dict.h>
#include <torchslim/api.h>

#include <map>
#include <string>

namespace torchslim::models {

/// Tensors by name, in the order they were put in.
using TensorDict = torch::OrderedDict<std::string, at::Tensor>;

/// What a `.safetensors` file holds.
struct TORCHSLIM_API TensorFile {
  TensorDict tensors;  // in the order of the file
  std::map<std::string, std::string> metadata;
};

/// Writes `tensors` to `path` as a `.safetensors` file, whole or not at all (core/atomic_file.h).
///   tensors   any shape, also 0-dim and empty; float64/32/16, bfloat16, int64/32/16/8, uint8,
///   bool; any device metadata  free text by key; keys that begin with "crc32." are taken
/// The order in the file is widest type first, then by name, so that every tensor is aligned and
/// the same content gives the same bytes. Checksums go into the metadata: "crc32.<name>" covers
/// type, shape and bytes of a tensor. Throws c10::ValueError for a tensor it cannot hold, by name,
/// and core::FileError if the file cannot be written.
TORCHSLIM_API void save_tensors(const std::string& path, const TensorDict& tensors,
                                const std::map<std::string, std::string>& metadata = {});

/// Reads a `.safetensors` file, with or without checksums, into new CPU tensors; returned metadata
/// lacks the checksums. Everything in the file is checked before a tensor is made of it: length,
/// header, types, shapes, that the tensors cover the data without holes or overlaps, and the
/// checksums if there are any. Throws c10::ValueError that says what is wrong with the file,
/// core::FileError if it cannot be read.
TORCHSLIM_API TensorFile load_tensors(const std::string& path);

}  // namespace torchslim::models
