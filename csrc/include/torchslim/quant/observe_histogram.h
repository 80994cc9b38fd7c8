// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>

namespace torchslim::quant {

/// Adds the values of `x` to a histogram, or to one for each channel or group. The histogram observers hold the state; op
/// `torchslim::observe_histogram`.
/// Bins are 2^e wide and begin at whole multiples of 2^e: bin j counts the values with floor(x / 2^e) = floor(min_val / 2^e)
/// + j, with the smallest e for which `bins` bins hold [min_val, max_val] (and no less than float32 resolves there). So the
/// state depends on the values seen and not on their order; a range that grows merges whole bins, and no count is lost.
///   x                 any shape, float32, float64, bfloat16 or float16, counted as float32; if empty, nothing is observed
///   histogram         int64, changed: the shape of min_val and one more dimension, the bins (2 to 2^20)
///   min_val, max_val  float32, changed: the smallest and largest value seen, (inf, -inf) if none. Shape: one element; with
///                     `axis` (x.size(axis)); with `group_size` that of x, `axis` divided by group_size
///   axis, group_size, skip_non_finite   as in `observe_range`
/// No gradient. The same bits for any number of threads.
/// Throws c10::ValueError, c10::TypeError where the above does not hold, or if x holds NaN or infinity in float32 and
/// skip_non_finite is false, before it changes anything.
TORCHSLIM_API void observe_histogram(const at::Tensor& x, const at::Tensor& histogram, const at::Tensor& min_val,
                                     const at::Tensor& max_val, std::optional<int64_t> axis = std::nullopt,
                                     std::optional<int64_t> group_size = std::nullopt, bool skip_non_finite = false);

}  // namespace torchslim::quant
