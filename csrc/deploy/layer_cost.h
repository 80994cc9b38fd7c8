// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/deploy/integer_graph.h>

#include <cstdint>

namespace torchslim::deploy {

/// Of int8 layers, besides a byte for each code.
constexpr int64_t kPtlBytesPerChannel = 12;  // .ptl: a float64 scale and a float32 bias
constexpr int64_t kPteBytesPerChannel = 8;   // .pte: a float32 scale and an int32 bias

/// Returns how many numbers the tensors of a float operation hold.
int64_t float_parameters(const graph::Node& node);

/// Returns what the tensors of an operation take in a file: int8 codes and channels, a table's codes, or four bytes for
/// each float.
int64_t bytes_of(const IntegerNode& node, int64_t bytes_per_channel);

}  // namespace torchslim::deploy
