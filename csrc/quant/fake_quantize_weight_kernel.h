// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"

/// Rounds `channels` rows of `size` floats from `weight` to `result`, each to its own grid of the codes
/// [-largest_code, largest_code], and writes their scales.
TORCHSLIM_DECLARE_KERNEL(void fake_quantize_weight_f32(const float* weight, float* result, float* scale,
                                                       int64_t channels, int64_t size, float largest_code);)
