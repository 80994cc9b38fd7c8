// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>

namespace torchslim::quant {

/// Observes the range of c = clamp(x, clamp_min, clamp_max), moves the state towards it, chooses the grid that follows
/// (`choose_qparams`), and returns fake_quantize(c) on that grid: two reads and one write of memory.
///   x                   any shape, float32, float64, bfloat16 or float16, finite; if empty, nothing is observed
///   min_val, max_val    one element, float32; the range, changed: r + averaging_constant·(seen − r), and the first range
///                       as it is (+inf, -inf: nothing seen)
///   scale, zero_point   one element, float32 and int32; the grid, changed
///   averaging_constant  in (0, 1]; torch.ao's default is 0.01
///   quant_min, quant_max, symmetric   of the grid
///   clamp_min, clamp_max              the activation: ReLU (0, empty), ReLU6 (0, 6), none (empty, empty)
///   keep_extremes       the range only widens (min-max observer); averaging_constant is ignored
/// Gradient: clipped straight-through on the new grid, and 0 where x ≤ clamp_min or x ≥ clamp_max. The range has none.
/// The result and the state have the same bits for any number of threads.
/// Throws c10::ValueError if x holds NaN or infinity, before it changes anything.
TORCHSLIM_API at::Tensor observe_fake_quantize(const at::Tensor& x, const at::Tensor& min_val,
                                               const at::Tensor& max_val, const at::Tensor& scale,
                                               const at::Tensor& zero_point, double averaging_constant,
                                               int64_t quant_min, int64_t quant_max, bool symmetric,
                                               std::optional<double> clamp_min = std::nullopt,
                                               std::optional<double> clamp_max = std::nullopt,
                                               bool keep_extremes = false);

/// The same for each index of dimension `axis` of `x`, with a state of shape (x.size(axis)): two reads and one write in
/// any dense layout. As for weights, a scale has no lower limit, and is 1 where the range is 0.
TORCHSLIM_API at::Tensor observe_fake_quantize(const at::Tensor& x, const at::Tensor& min_val,
                                               const at::Tensor& max_val, const at::Tensor& scale,
                                               const at::Tensor& zero_point, int64_t axis, double averaging_constant,
                                               int64_t quant_min, int64_t quant_max, bool symmetric,
                                               bool keep_extremes = false);

/// Observes the range of each index of dimension `axis` of `x`, and moves the state, tensors of shape (x.size(axis)), as
/// `observe_fake_quantize` does. As for weights, a scale has no lower limit, and is 1 where the range is 0. Returns nothing.
/// Throws c10::ValueError if x holds NaN or infinity, before it changes anything.
TORCHSLIM_API void observe_channels(const at::Tensor& x, const at::Tensor& min_val, const at::Tensor& max_val,
                                    const at::Tensor& scale, const at::Tensor& zero_point, int64_t axis,
                                    double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
                                    bool keep_extremes = false);

}  // namespace torchslim::quant
