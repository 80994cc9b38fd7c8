// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"

namespace torchslim::quant {

/// The grids of a tensor that lies in memory as (outer, channels, inner), and the open interval of x that a fused clamp
/// lets gradients through (-inf, inf without one). All pointers have `channels` elements.
struct ChannelGrids {
  const float* inverse_scale;
  const float* scale;
  const float* low;   // quant_min - zero_point, or where the fused clamp cuts, whichever is higher
  const float* high;  // quant_max - zero_point, or where the fused clamp cuts, whichever is lower
  int64_t channels;
  int64_t inner;
  float pass_above;
  float pass_below;
  bool float_values;  // float64 only: round the result to float32, as ATen does without channels
};

}  // namespace torchslim::quant

// Fake-quantises elements [begin, end) of x into y (which may be x). If `cut` is not null, bit i of it becomes 1 where
// the gradient of element i is cut, 0 where it passes; `begin` must then be a multiple of 8. `stream`: core/streaming_store.h.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void fake_quantize_span(const T* x, T* y, uint8_t* cut, int64_t begin,
                                                                       int64_t end, const quant::ChannelGrids& grids,
                                                                       bool stream);)

// The same, rounding up with the probability of the fraction: number i of the sequence `seed` (core/philox.h) decides on
// element i. `begin` must be a multiple of 32.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void fake_quantize_stochastic_span(const T* x, T* y, uint8_t* cut,
                                                                                  int64_t begin, int64_t end,
                                                                                  const quant::ChannelGrids& grids,
                                                                                  uint64_t seed, bool stream);)

// dx[i] = dy[i] · (1 − cut bit i) for i in [begin, end): a product, as in ATen, so that NaN in dy is not hidden.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void cut_gradient_span(const T* dy, const uint8_t* cut, T* dx,
                                                                      int64_t begin, int64_t end, bool stream);)

// Writes the smallest and largest of x[0, n), n > 0; NaN if x holds NaN.
TORCHSLIM_DECLARE_KERNEL(template <typename T> void range_span(const T* x, int64_t n, float* min, float* max);)
