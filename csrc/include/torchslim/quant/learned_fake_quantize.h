// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>

namespace torchslim::quant {

/// Returns fake_quantize(x) on a grid that learns: the same values, with gradients for x, scale and zero point, of which
/// only those that are wanted are computed, in one pass over x and the incoming gradient dy.
///   x                     any shape, float32, float64, bfloat16 or float16
///   scale                 > 0, normal float32; one element, or (x.size(axis))
///   zero_point            shape of scale, any finite number: rounded half to even, then clamped to the grid
///   quant_min, quant_max  within ±2^23
///   axis                  the channel dimension, negative from the end; empty: one grid
///   grad_scale            factor g on the gradients of scale and zero point, with Q = quant_max and n elements of x:
///                         "none" 1, "numel" 1/√(n·Q), "per_channel" 1/√(n/channels·Q), "features" 1/√(n/x.size(0)·Q)
///   gradient              "rounded" (LSQ) or "clip" (PACT): does the rounding error count?
/// Gradient, with v = x/scale, q the rounded and clamped code, z the zero point, and inside = (q was not clamped):
///   dx = dy·[inside]; dscale = g·Σ dy·(q − z − [inside]·v); dzero_point = g·Σ −scale·dy·[not inside].
/// With "clip", inside = (x between the first and the last grid point, both excluded), where dscale counts nothing.
/// Sums are in float64 over fixed chunks in a fixed order: the same bits for any number of threads. Keeps x for
/// backward. Not differentiable twice. Op `torchslim::learned_fake_quantize`.
/// Throws c10::ValueError or c10::TypeError where the above does not hold, or tensors are on different devices.
/// Esser et al. 2020, arXiv:1902.08153, eq. 3; Bhalgat et al. 2020, arXiv:2004.09576, section 3.
TORCHSLIM_API at::Tensor learned_fake_quantize(const at::Tensor& x, const at::Tensor& scale,
                                               const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                               std::optional<int64_t> axis = std::nullopt,
                                               std::string_view grad_scale = "none",
                                               std::string_view gradient = "rounded");

/// What a quantiser trains is not its scale but a raw number that may take any value. These functions turn it into the
/// grid for `learned_fake_quantize`, differentiably, element by element, in float32, each as op `torchslim::<name>`.

/// LSQ: returns max(|raw|, 2^-23), a scale that cannot leave the positive numbers. Gradient: sign(raw), +1 for 0; also
/// below the smallest scale, so that a scale that got there can grow again.
TORCHSLIM_API at::Tensor positive_scale(const at::Tensor& raw);

/// PACT: returns the scale of a grid from 0 (zero point = quant_min) to alpha: positive_scale(alpha) / (quant_max −
/// quant_min). With gradient "clip", alpha's gradient is Σ dy·[x ≥ alpha]. Choi et al. 2018, arXiv:1805.06085, eq. 1 to 3.
/// Throws c10::ValueError if quant_min ≥ quant_max.
TORCHSLIM_API at::Tensor pact_scale(const at::Tensor& alpha, int64_t quant_min, int64_t quant_max);

/// TQT: returns the power of two 2^ceil(log2_threshold) / (quant_max + 1). Gradient: straight through the ceil, so
/// scale·ln 2. Jain et al. 2020, arXiv:1903.08066, section 3.
/// Throws c10::ValueError unless quant_max + 1 is a power of two.
TORCHSLIM_API at::Tensor trained_threshold_scale(const at::Tensor& log2_threshold, int64_t quant_max);

/// A range that trains, as NNCF's asymmetric quantiser: scale = positive_scale(input_range) / (quant_max − quant_min),
/// zero_point = quant_min − input_low / scale, not yet rounded. Through `learned_fake_quantize`, which moves the range by
/// less than half a step so that 0 is a grid point, dlow = Σ dy beyond the range, and drange = Σ dy·((y − x) / range)
/// inside, Σ dy above, 0 below it.
/// Returns (scale, zero_point). Throws c10::ValueError if quant_min ≥ quant_max or the shapes differ.
TORCHSLIM_API std::tuple<at::Tensor, at::Tensor> trainable_range_qparams(const at::Tensor& input_low,
                                                                         const at::Tensor& input_range,
                                                                         int64_t quant_min, int64_t quant_max);

/// Returns the zero point that `learned_fake_quantize` computes with: rounded half to even, clamped, int32. No gradient.
/// Throws c10::ValueError if one is not finite.
TORCHSLIM_API at::Tensor rounded_zero_point(const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max);

}  // namespace torchslim::quant
