// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"
#include "quant/fake_quantize_kernel.h"

namespace torchslim::quant {

/// Where the sums of a chunk of elements go; a null pointer where one is not wanted. Channel c has slot c − first, plus
/// `channels` where that is negative.
struct GradientSums {
  double* scale;    // Σ dy · ∂y/∂scale
  double* outside;  // Σ dy of the elements beyond the grid
  int64_t first;
};

}  // namespace torchslim::quant

// The gradient of learned_fake_quantize for the elements [begin, end) of a tensor that lies in memory as `grids` says:
// writes dx (unless it is null) and adds to `sums`, whose slots hold 0. `clip` selects the gradient "clip"; the elements
// are added in an order that depends on begin and end alone, in double.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void learned_gradient_span(const T* dy, const T* x, T* dx, int64_t begin,
                                                                          int64_t end, const quant::ChannelGrids& grids,
                                                                          bool clip, const quant::GradientSums& sums,
                                                                          bool stream);)
