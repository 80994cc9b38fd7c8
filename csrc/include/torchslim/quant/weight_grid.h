// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>

#include <cstdint>
#include <string>

namespace torchslim::quant {

/// A weight on a symmetric grid per output channel: `weight` is `codes * scale`.
struct TORCHSLIM_API GridWeight {
  at::Tensor weight;  // shape and dtype of the float weight
  at::Tensor scale;   // float32 (O), > 0
  at::Tensor codes;   // int8, shape of the weight, in [-(2^(bits-1) - 1), 2^(bits-1) - 1]
};

/// Options for the grid of a weight.
///
/// Example: weight_scale(weight, WeightGridOptions().bits(4).scale_search("mse"))
struct TORCHSLIM_API WeightGridOptions {
  /// Width of a code, 2 to 8: [-(2^(bits-1) - 1), 2^(bits-1) - 1]. Default: 8.
  TORCH_ARG(int64_t, bits) = 8;
  /// "absmax": the largest magnitude of a channel is the largest code. "mse": the one of 80 shares of that scale, from 1
  /// down to 0.21, with the smallest squared error of the channel, the larger scale on a tie. Default: "absmax".
  TORCH_ARG(std::string, scale_search) = "absmax";

 public:
  /// Returns the largest code.
  int64_t largest_code() const { return (int64_t{1} << (bits() - 1)) - 1; }
  /// Throws c10::ValueError, with `who` in front, unless the options make sense.
  void check(const char* who) const;
};

/// Returns the scale of each output channel of `weight`, float32 (O): max|w| / largest code or, as `scale_search` says, less;
/// 1 for a channel that is all zero (or too small for a normal float32 scale).
///   weight  (O, ...) float32, float64, bfloat16 or float16, not empty
/// Throws c10::ValueError on NaN or infinity, naming the channel, on an empty weight and on options out of range. No gradient.
/// Op `torchslim::weight_scale`.
TORCHSLIM_API at::Tensor weight_scale(const at::Tensor& weight, const WeightGridOptions& options = {});

/// Rounds `weight` to the nearest point of its grid, half to even, as `fake_quantize` does: what GPTQ and AdaRound improve on.
///   weight  (O, ...) float32, float64, bfloat16 or float16, not empty
///   scale   (O) float32, > 0, or undefined: `weight_scale(weight, options)`
/// Throws c10::ValueError where that does not hold and on NaN or infinity. No gradient.
TORCHSLIM_API GridWeight round_weight(const at::Tensor& weight, const WeightGridOptions& options = {},
                                      const at::Tensor& scale = {});

}  // namespace torchslim::quant
