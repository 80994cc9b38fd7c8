// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/deploy/integer_graph.h>

#include <cstdint>

namespace torchslim::deploy {

/// Returns how many numbers the tensors of a float operation hold.
int64_t float_parameters(const graph::Node& node);

/// Returns what the tensors of an operation take in a .ptl or a .pte file: a byte for each code, some for each output
/// channel, a table's codes, or four bytes for each float.
int64_t ptl_bytes(const IntegerNode& node);
int64_t pte_bytes(const IntegerNode& node);

}  // namespace torchslim::deploy
