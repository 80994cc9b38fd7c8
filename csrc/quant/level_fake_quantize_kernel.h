// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"
#include "quant/scales.h"

namespace torchslim::quant {

/// Ascending levels as a search tree. Node 1 is the root and node i has the children 2i and 2i + 1: a number v goes to the
/// second where v > threshold i. After `depth` (4 or more) steps it stands at node 2^depth + the index of its level.
/// Thresholds beyond the last are infinite.
struct LevelTree {
  const float* thresholds;        // 2^depth
  const double* wide_thresholds;  // the same for float64 numbers, null unless those are quantised
  const float* levels;            // 2^depth
  int depth;
  float lowest, highest;
};

}  // namespace torchslim::quant

// Quantises elements [begin, end) of x into y: y = scale · the level of x · (1/scale). If `cut` is not null, bit i of it
// becomes 1 where x · (1/scale) lies outside the levels, or is NaN; `begin` must then be a multiple of 8.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void level_span(const T* x, T* y, uint8_t* cut, int64_t begin,
                                                               int64_t end, const quant::Scales& scales,
                                                               const quant::LevelTree& tree, bool stream);)
