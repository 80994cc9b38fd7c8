// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>

namespace torchslim::quant {

/// Rounds `x` to the grid of `fake_quantize`, up with the probability of the fraction: with v = x·(1/scale),
/// q = clamp(floor(v) + [u < v − floor(v)] + zero_point, quant_min, quant_max), result scale·(q − zero_point). Inside
/// the grid the expected result is x; what lies on the grid stays.
///   x, scale, zero_point, quant_min, quant_max, axis   as for `fake_quantize`
///   seed   one int64 element. u is number i of its sequence, Philox4x32-10, for the i-th element in memory: the same
///          bits for any number of threads, instruction set and device
/// Gradient: clipped straight-through on the rounded value; one bit per element is kept. Not differentiable twice.
/// Op `torchslim::fake_quantize_stochastic`. Throws as `fake_quantize`.
/// Gupta et al. 2015, arXiv:1502.02551, section 3; Salmon et al. 2011, doi:10.1145/2063384.2063405.
TORCHSLIM_API at::Tensor fake_quantize_stochastic(const at::Tensor& x, const at::Tensor& scale,
                                                  const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                                  std::optional<int64_t> axis, const at::Tensor& seed);

/// The same with a seed that is drawn from `generator`, or from the default one: new numbers in each call.
TORCHSLIM_API at::Tensor fake_quantize_stochastic(const at::Tensor& x, const at::Tensor& scale,
                                                  const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                                  std::optional<int64_t> axis = std::nullopt,
                                                  std::optional<at::Generator> generator = std::nullopt);

}  // namespace torchslim::quant
