// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace torchslim::quant {

/// Returns sign(x) · mean|x|, with sign(0) = 1 and x's type and strides.
///   x         any shape, float32, float64, bfloat16 or float16; NaN makes the mean NaN
///   axis      the channel dimension, to have one mean for each channel, negative from the end; empty: one mean
///   gradient  "clipped": straight-through, 1 where |x| ≤ 1, 0 elsewhere; one bit per element is kept. "passthrough": 1
///             everywhere. The mean counts as a constant. Not differentiable twice.
/// The mean is summed in float64, the same bits for any number of threads, and rounded to float32.
/// Op `torchslim::binary_fake_quantize`. Throws c10::ValueError or c10::TypeError where the above does not hold.
/// Rastegari et al. 2016, arXiv:1603.05279, eq. 6; its gradient: Hubara et al. 2016, arXiv:1602.02830, eq. 4.
TORCHSLIM_API at::Tensor binary_fake_quantize(const at::Tensor& x, std::optional<int64_t> axis = std::nullopt,
                                              std::string_view gradient = "clipped");

/// Returns s · sign(x) where |x| > d, and 0 elsewhere: d = 0.7 · mean|x|, and s the mean of the |x| above it.
/// Arguments, gradients and errors as for `binary_fake_quantize`; d and s are rounded to float32.
/// Op `torchslim::ternary_fake_quantize`. Li, Zhang and Liu 2016, arXiv:1605.04711, eq. 5 and 6.
TORCHSLIM_API at::Tensor ternary_fake_quantize(const at::Tensor& x, std::optional<int64_t> axis = std::nullopt,
                                               std::string_view gradient = "passthrough");

}  // namespace torchslim::quant
