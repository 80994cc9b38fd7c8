// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"

namespace torchslim::prune::detail {

// The bits of a float without its sign are an integer that grows with |x|: the key. Keys are read
// in digits, the top one of 15 bits, each next one of 16 (float16 and bfloat16 have the top one
// only).
constexpr int kTopDigitBits = 15;
constexpr int kDigitBits = 16;
// Consecutive values fall into different copies of the histogram, so that equal ones do not wait
// for each other.
constexpr int kHistogramCopies = 4;

template <typename Bits>
[[gnu::always_inline]] constexpr Bits key_of(Bits bits) {
  constexpr auto kAllOnes = static_cast<Bits>(~Bits{0});  // ~ widens 16 bits to int
  return static_cast<Bits>(bits & (kAllOnes >> 1));
}

}  // namespace torchslim::prune::detail

// `Bits` is uint16_t, uint32_t or uint64_t; x holds n values; nothing need be aligned beyond its
// type.
TORCHSLIM_DECLARE_KERNEL(
    // Adds the top digits of x to `bins`: kHistogramCopies histograms of 2^15 counts, to be summed
    // by the caller.
    template <typename Bits> void count_top_digits(const Bits* x, int64_t n, uint32_t* bins);

    // Adds to the 2^16 counts `bins` the digit at bit `shift` of those keys whose bits above it are
    // `prefix`.
    template <typename Bits> void count_next_digits(const Bits* x, int64_t n, Bits prefix, int shift, uint32_t* bins);

    // Returns how many keys equal `key`.
    template <typename Bits> int64_t count_equal(const Bits* x, int64_t n, Bits key);

    // keep[i] = (the key of x[i] is at least `lowest`).
    template <typename Bits> void keep_from(const Bits* x, int64_t n, Bits lowest, bool* keep);

    // keep[i] = (the key of x[i] is over `threshold`, or equals it and `quota` earlier ones did so
    // before).
    template <typename Bits> void keep_after_quota(const Bits* x, int64_t n, Bits threshold, int64_t quota, bool* keep);

    // x[i] = +0 where keep[i] is false, whatever x[i] was (a NaN too).
    template <typename Bits> void zero_pruned(Bits* x, const bool* keep, int64_t n);)
