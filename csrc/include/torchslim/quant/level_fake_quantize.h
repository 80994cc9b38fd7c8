// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace torchslim::quant {

/// Rounds `x` to any table of levels: y = scale · nearest(levels, x · (1/scale)), in float32 (float64 for float64), with
/// x's type and strides. Half-way between two levels the one with the even index is taken, so that the levels
/// quant_min .. quant_max of an even quant_min round as `fake_quantize` does. NaN stays NaN.
///   x         any shape, float32, float64, bfloat16 or float16
///   levels    (n), 1 ≤ n ≤ 65536, finite and strictly ascending; float32 (others are converted); on x's device
///   scale     > 0, a normal float32; one element, or with `axis` (x.size(axis)); on x's device
///   axis      the channel dimension, negative from the end; empty: one scale
///   gradient  "clipped": straight-through, 1 where x · (1/scale) lies in [lowest level, highest level], 0 elsewhere; one
///             bit per element is kept. "passthrough": 1 everywhere. None for levels and scale. Not differentiable twice.
/// Op `torchslim::level_fake_quantize`. Throws c10::ValueError or c10::TypeError where the above does not hold.
/// Tables: quant/levels.h. Li et al. 2020, arXiv:1909.13144, eq. 1.
TORCHSLIM_API at::Tensor level_fake_quantize(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& scale,
                                             std::optional<int64_t> axis = std::nullopt,
                                             std::string_view gradient = "clipped");

}  // namespace torchslim::quant
