// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"
#include "quant/float_grid.h"
#include "quant/scales.h"

// Rounds elements [begin, end) of x to y = scale · round(x · (1/scale)). If `cut` is not null, bit i of it becomes 1 where
// x · (1/scale) is too large for the format, or NaN; `begin` must then be a multiple of 8.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void float_span(const T* x, T* y, uint8_t* cut, int64_t begin,
                                                               int64_t end, const quant::Scales& scales,
                                                               const quant::FloatGrid& grid, bool stream);)

// Writes the scales, and 1 / scale, of blocks of `block` elements that lie `inner` apart, for units [begin, end) of
// block · inner neighbouring elements, which hold `inner` blocks each: the powers of two with the exponent of the largest
// finite magnitude less `exponent`, at least -127 and at most 127.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void block_scales(const T* x, int64_t begin, int64_t end, int64_t block,
                                                                 int64_t inner, int exponent, float* scale,
                                                                 float* inverse_scale);)
