// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/quant/float_format.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace torchslim::quant {

/// Rounds `x` to a floating-point format, half to even, and returns x's type and strides:
/// y = scale · round(x · (1/scale)), computed in float32 (float64 is converted first, as in torch's casts). Without a scale
/// these are the bits of torch's casts and back: to float16, bfloat16 and float8_e5m2 with `saturate` false, to
/// float8_e4m3fn with `saturate` true.
///   x         any shape, float32, float64, bfloat16 or float16; NaN stays, infinity counts as too large
///   format    see `FloatFormat`
///   scale     > 0, a normal float32; one element, or with `axis` (x.size(axis)); on x's device; empty: 1
///   axis      the channel dimension, negative from the end; empty: one scale
///   gradient  "clipped": straight-through, 1 where x rounds to a number of the format without saturating, 0 for what is
///             too large and NaN; one bit per element is kept. "passthrough": 1 everywhere. Not differentiable twice.
/// Op `torchslim::float_fake_quantize`. Throws c10::ValueError or c10::TypeError where the above does not hold.
TORCHSLIM_API at::Tensor float_fake_quantize(const at::Tensor& x, const FloatFormat& format,
                                             const std::optional<at::Tensor>& scale = std::nullopt,
                                             std::optional<int64_t> axis = std::nullopt,
                                             std::string_view gradient = "clipped");

}  // namespace torchslim::quant
