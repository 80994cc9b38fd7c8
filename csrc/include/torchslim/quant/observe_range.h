// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>

namespace torchslim::quant {

/// Moves a range, or one for each channel or group, to hold or to follow the values of `x`. `MinMaxObserver` and
/// `MovingAverageObserver` hold the state; op `torchslim::observe_range`.
///   x                  any shape, float32, float64, bfloat16 or float16; if empty, nothing is observed
///   min_val, max_val   float32, changed: (inf, -inf) where nothing has been seen, and the first range as it is. Shape: one
///                      element; with `axis` (x.size(axis)); with `group_size` that of x, `axis` divided by group_size
///   axis               the channel dimension, negative from the end; empty: one range
///   group_size         elements along `axis` that share a range; must divide it; empty: the whole slice shares one
///   averaging_constant r + averaging_constant·(seen − r), in (0, 1]
///   keep_extremes      the range only widens; averaging_constant is ignored
///   skip_non_finite    NaN and infinities are left out instead of refused
/// No gradient. The same bits for any number of threads.
/// Throws c10::ValueError, c10::TypeError where the above does not hold, or if x holds NaN or infinity in float32 and
/// skip_non_finite is false, before it changes anything.
TORCHSLIM_API void observe_range(const at::Tensor& x, const at::Tensor& min_val, const at::Tensor& max_val,
                                 std::optional<int64_t> axis = std::nullopt,
                                 std::optional<int64_t> group_size = std::nullopt, double averaging_constant = 1.0,
                                 bool keep_extremes = true, bool skip_non_finite = false);

}  // namespace torchslim::quant
