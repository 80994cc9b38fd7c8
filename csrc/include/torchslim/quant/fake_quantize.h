// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>

namespace torchslim::quant {

/// Rounds `x` to the grid {scale·(q − zero_point) : quant_min ≤ q ≤ quant_max} and returns floats of x's type and
/// strides: scale·(clamp(rint(x·(1/scale)) + zero_point, quant_min, quant_max) − zero_point), half to even, in float32
/// (float64 for float64). Bit-equal to ATen's, but NaN stays NaN.
///   x                     any shape, float32, float64, bfloat16 or float16
///   scale                 > 0, a normal float32, in the unit of x
///   zero_point            in [quant_min, quant_max]
///   quant_min, quant_max  within ±2^23
/// Gradient: clipped straight-through, 1 inside the grid (rounded value, limits included), 0 outside; one bit per
/// element is kept for it. Not differentiable twice. Op `torchslim::fake_quantize`.
/// Throws c10::ValueError or c10::TypeError where the above does not hold. Jacob et al. 2018, arXiv:1712.05877, eq. 12.
TORCHSLIM_API at::Tensor fake_quantize(const at::Tensor& x, double scale, int64_t zero_point, int64_t quant_min,
                                       int64_t quant_max);

/// The same with the grid in tensors: one for all of `x`, or one for each index of dimension `axis`.
///   scale       one element, or (x.size(axis)); float32 (others are converted); no gradient flows to it
///   zero_point  shape of scale, whole numbers
///   axis        the channel dimension, negative from the end; empty: one grid
/// Huge values and +Inf saturate upwards (ATen's per-channel op wraps them to quant_min).
TORCHSLIM_API at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                                       int64_t quant_min, int64_t quant_max,
                                       std::optional<int64_t> axis = std::nullopt);

/// Returns fake_quantize(clamp(x, clamp_min, clamp_max)), one grid for all of `x`, in one pass: ReLU (0, empty) or
/// ReLU6 (0, 6) for free.
/// Gradient: clipped straight-through, and 0 where x ≤ clamp_min or x ≥ clamp_max.
TORCHSLIM_API at::Tensor clamp_fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                                             int64_t quant_min, int64_t quant_max, std::optional<double> clamp_min,
                                             std::optional<double> clamp_max);

}  // namespace torchslim::quant
