// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <tuple>

namespace torchslim::quant {

/// Rounds a weight to integers, symmetric per output channel, and returns it as floats, with the scale:
/// for each channel scale = max|w| / (2^(bits-1) - 1) (1 if the channel is all zero) and
/// rint(w / scale)·scale, in one pass over memory.
///   weight  (O, ...) float32; any memory format, which the result keeps
///   bits    width of a code, 2 to 8
/// Returns (weight on its grid, scale float32 (O)): the bits of `round_weight`'s codes times scale. Rounds half to even. NaN or Inf makes its whole channel NaN. Gradient: clipped
/// straight-through, which is the identity here, as no weight lies outside a grid that is made for
/// it; none flows through the scale. Op: torchslim::fake_quantize_weight. Throws c10::TypeError on
/// another dtype, c10::ValueError on fewer than 2 dims or other bits.
TORCHSLIM_API std::tuple<at::Tensor, at::Tensor> fake_quantize_weight(const at::Tensor& weight, int64_t bits = 8);

namespace detail {

/// The same from ATen ops alone: what devices without a kernel of ours run.
TORCHSLIM_API std::tuple<at::Tensor, at::Tensor> fake_quantize_weight_composite(const at::Tensor& weight,
                                                                                int64_t bits = 8);

}  // namespace detail

}  // namespace torchslim::quant
