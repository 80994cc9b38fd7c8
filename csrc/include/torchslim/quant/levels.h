// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>

namespace torchslim::quant {

/// Returns additive powers of two, float32, ascending, the largest 1: sums of one number from each of n = ⌊m/2⌋ sets
/// {0, 2^-(i+1), 2^-(i+1+n), 2^-(i+1+2n)}, i = 0 .. n−1, and for odd m one more of two numbers, all divided by the
/// largest sum. m = bits, or bits − 1 beside a sign, which also gives the negatives: 2^bits or 2^bits − 1 levels.
///   bits       width of a code: 1 to 7, or 2 to 8 with a sign
///   is_signed  whether the levels lie on both sides of 0, as for weights
/// Throws c10::ValueError for other bits. Li et al. 2020, arXiv:1909.13144, eq. 5 and section 2.2.
TORCHSLIM_API at::Tensor apot_levels(int64_t bits, bool is_signed = true);

/// Returns powers of two, float32, ascending: 0 and 2^-i for 0 ≤ i ≤ 2^m − 2, with m, the negatives and errors as for
/// `apot_levels`. Miyashita et al. 2016, arXiv:1603.01025; Li et al. 2020, eq. 3.
TORCHSLIM_API at::Tensor power_of_two_levels(int64_t bits, bool is_signed = true);

/// Returns the codebook of k-means, float32, ascending: each level is the mean of the elements nearest to it (Lloyd's
/// iteration on the sorted elements, from their quantiles (i + 1/2) / k; no chance is involved).
///   x           floating point, any shape, not empty, without NaN and infinities
///   k           number of levels, 1 to 65536; fewer come back if x has fewer distinct values
///   iterations  the most that are made, ≥ 0; they end when nothing moves
/// No gradient. Throws c10::ValueError or c10::TypeError where that does not hold. Lloyd 1982; Han et al. 2016,
/// arXiv:1510.00149, section 3.1.
TORCHSLIM_API at::Tensor kmeans_levels(const at::Tensor& x, int64_t k, int64_t iterations = 100);

/// Returns `scale` with each number rounded to the nearest power of two: nearest in its logarithm, so upwards from √2.
///   scale  floating point, any shape, positive and normal
/// No gradient. Throws c10::ValueError or c10::TypeError where that does not hold.
TORCHSLIM_API at::Tensor power_of_two_scale(const at::Tensor& scale);

/// Returns max|x| / largest, float32: the scale at which the largest level meets the largest element; 1 where all of x is 0.
///   x        floating point, not empty, without NaN and infinities
///   largest  > 0, the largest magnitude of a level
///   axis     the channel dimension; empty: one scale, shape ()
/// No gradient. Throws c10::ValueError or c10::TypeError where that does not hold.
TORCHSLIM_API at::Tensor absmax_scale(const at::Tensor& x, double largest, std::optional<int64_t> axis = std::nullopt);

}  // namespace torchslim::quant
