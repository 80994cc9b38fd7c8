// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>

namespace torchslim::quant {

/// The smallest scale that `choose_qparams` gives: below it, runtimes' fixed-point multipliers lose bits.
constexpr double kMinScale = 1.0 / 4096;

/// One grid, in numbers.
struct TORCHSLIM_API GridNumbers {
  float scale = 1.0f;
  int32_t zero_point = 0;
};

/// One grid, or one for each channel.
struct TORCHSLIM_API GridTensors {
  at::Tensor scale;       // float32
  at::Tensor zero_point;  // int32, the same shape
};

/// Returns the grid that holds [min_val, max_val], widened to hold 0, so that 0 is a grid point.
/// Asymmetric: scale = (max − min) / (quant_max − quant_min), zero_point = quant_min − rint(min / scale), clamped.
/// Symmetric: zero_point z in the middle (0 for signed grids), scale = max(−min, max) / min(z − quant_min, quant_max − z).
/// The scale is at least 2^-12.
/// Throws c10::ValueError if min_val > max_val, one is not finite, or quant_min ≥ quant_max. No gradient.
TORCHSLIM_API GridNumbers choose_qparams(double min_val, double max_val, int64_t quant_min, int64_t quant_max,
                                         bool symmetric);

/// The same for each element of `min_val` and `max_val`, which have one shape; it is the result's.
TORCHSLIM_API GridTensors choose_qparams(const at::Tensor& min_val, const at::Tensor& max_val, int64_t quant_min,
                                         int64_t quant_max, bool symmetric);

/// The same for channels or groups, for instance of a weight: a scale has no lower limit, and is 1 where the range is 0
/// (or too small for a normal float32 scale). This is the grid that `observe_channels` writes.
TORCHSLIM_API GridTensors channel_qparams(const at::Tensor& min_val, const at::Tensor& max_val, int64_t quant_min,
                                          int64_t quant_max, bool symmetric);

/// Writes the grids that follow from observed ranges into `scale` and `zero_point`: op `torchslim::update_qparams`, one node
/// in a captured graph, which cannot branch on what was seen.
///   min_val, max_val   float32, any shape; where they are (inf, -inf), nothing was seen and the grid stays
///   scale, zero_point  float32 and int32 of that shape, changed
///   per_channel        the rule of `channel_qparams`, instead of `choose_qparams`
/// Throws what `choose_qparams` does, before it changes anything. No gradient.
TORCHSLIM_API void update_qparams(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& scale,
                                  const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, bool symmetric,
                                  bool per_channel);

/// Returns the symmetric grid [-127, 127] of each output channel of a weight: scale = max|w| / 127, or 1 for a channel
/// that is all zero (or too small for a normal float32 scale); zero_point = 0. A pure function of the weights.
///   weight  (O, ...) float32, float64, bfloat16 or float16
/// Returns tensors of shape (O). Throws c10::ValueError on NaN or infinity, naming the channel. No gradient.
TORCHSLIM_API GridTensors weight_qparams(const at::Tensor& weight);

}  // namespace torchslim::quant
