// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/quant/float_format.h>

#include <cstdint>
#include <string_view>

namespace torchslim::quant {

/// Rounds `x` to numbers that share a power-of-two scale in each block of `block_size` along `axis` (microscaling, MX):
/// y = s · round(x / s), half to even, saturating, s = 2^clamp(⌊log₂ max|x|⌋ − ⌊log₂ format.max()⌋, −127, 127), where the
/// maximum runs over the finite numbers of the block. Returns x's type and strides.
///   x           any shape of at least one dimension, float32, float64 (converted to float32), bfloat16 or float16; NaN stays,
///               infinity saturates
///   format      of the elements, its largest number at least 1; MX: e4m3fn, e5m2, minifloat(3, 2), (2, 3), (2, 1), (0, 7)
///   block_size  divides x.size(axis); MX: 32
///   gradient    "clipped": straight-through, 1 where x / s rounds without saturating, 0 elsewhere and for NaN; one bit per
///               element is kept. "passthrough": 1 everywhere. Not differentiable twice.
/// Op `torchslim::block_float_fake_quantize`. Throws c10::ValueError or c10::TypeError where the above does not hold.
/// OCP Microscaling Formats (MX) Specification v1.0, 2023, section 6.3; Rouhani et al. 2023, arXiv:2310.10537, algorithm 1.
TORCHSLIM_API at::Tensor block_float_fake_quantize(const at::Tensor& x, const FloatFormat& format,
                                                   int64_t block_size = 32, int64_t axis = -1,
                                                   std::string_view gradient = "clipped");

}  // namespace torchslim::quant
