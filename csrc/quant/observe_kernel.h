// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"

namespace torchslim::quant {

/// Bins of one width, a power of two: bin j holds the values with floor(x · inverse_width) = first + j.
struct BinSpan {
  float inverse_width;
  float first;
  int32_t bins;
};

/// Values that fall into one bin again and again wait for each other: `ways` counts take turns.
constexpr int kCountWays = 2;

}  // namespace torchslim::quant

// Writes the smallest and largest finite value of x[0, n) as float32, or inf and -inf if none is finite.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void finite_range_span(const T* x, int64_t n, float* min, float* max);)

// Widens low[j] and high[j], j < width, by column j of the matrix x (rows, width); NaN stays.
TORCHSLIM_DECLARE_KERNEL(template <typename T>
                         void column_range_span(const T* x, int64_t rows, int64_t width, float* low, float* high);)

// Counts x[0, n), as float32, into `ways` (1 or kCountWays) arrays of bins + 1 counts, one after the other. The last count
// of each takes what lies in no bin, such as NaN. n < 2^32.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void count_bins_span(const T* x, int64_t n, const quant::BinSpan& span,
                                                                    uint32_t* counts, int ways);)
