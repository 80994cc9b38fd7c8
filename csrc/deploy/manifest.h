// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/deploy/reference.h>

#include <string>
#include <vector>

namespace torchslim::deploy {

/// Added to int8 codes it gives the uint8 codes that files hold for activations: the same grid.
constexpr int32_t kUint8Shift = 128;

constexpr const char* kPteFormat = "torchslim.pte/1";

/// Returns the image of a float file's sample, shape (1, ...) of `shape`.
at::Tensor float_sample(const std::vector<int64_t>& shape);

/// Returns the image of an int8 file's sample: on the grid of the input, where it has one.
at::Tensor int8_sample(const IntegerGraph& graph);

/// Returns what a file says about itself, as JSON: what goes in and comes out, versions, bytes of its layers where the
/// format's own records do not say them, and `output` for the sample.
///   format  such as "torchslim.ptl/1"
///   graph   with batch norms folded
std::string float_manifest(const std::string& format, const graph::Graph& graph, const SaveOptions& options,
                           const at::Tensor& output);

/// The same for an int8 file, with its grids and the checksum of its numbers.
///   expected  what the integer reference computes for the sample
std::string int8_manifest(const std::string& format, const IntegerGraph& graph, const SaveOptions& options,
                          const IntegerResult& expected);

/// The manifest of a .pte file, which Python writes, of what it writes there: a float graph with batch norms folded, or
/// integers. The sample's output is that of the float network or of the integer reference.
TORCHSLIM_API std::string pte_manifest(const graph::Graph& graph, const SaveOptions& options);
TORCHSLIM_API std::string pte_manifest(const IntegerGraph& graph, const SaveOptions& options);

}  // namespace torchslim::deploy
