// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"
#include "quant/scales.h"

// Adds the magnitudes of x[0, n) that are not at most `above` to *sum, and their number to *count.
TORCHSLIM_DECLARE_KERNEL(template <typename T>
                         void magnitude_sum(const T* x, int64_t n, float above, double* sum, double* count);)

// The same for `width` columns of `rows` rows that begin `stride` elements apart, each with its own limit and sums.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void magnitude_sum_columns(const T* x, int64_t rows, int64_t stride,
                                                                          int64_t width, const float* above,
                                                                          double* sum, double* count);)

// y = scale · sign(x) where |x| > threshold, else 0, for elements [begin, end). `thresholds` holds thresholds where others
// have 1 / scale. If `cut` is not null, bit i of it becomes 0 where |x| ≤ 1; `begin` must then be a multiple of 8.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void sign_span(const T* x, T* y, uint8_t* cut, int64_t begin,
                                                              int64_t end, const quant::Scales& thresholds,
                                                              bool stream);)
