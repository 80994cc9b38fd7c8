// SPDX-License-Identifier: BSD-3-Clause
#include "prune/magnitude_kernel.h"

// Plain loops: the compiler vectorises them for each instruction set, and integers give every one
// the same bits.
namespace torchslim::CPU_CAPABILITY {

using prune::detail::kDigitBits;
using prune::detail::key_of;
using prune::detail::kHistogramCopies;
using prune::detail::kTopDigitBits;

template <typename Bits>
void count_top_digits(const Bits* x, int64_t n, uint32_t* bins) {
  constexpr int kShift = static_cast<int>(8 * sizeof(Bits)) - 1 - kTopDigitBits;
  int64_t i = 0;
  for (; i + kHistogramCopies <= n; i += kHistogramCopies) {
    for (int copy = 0; copy < kHistogramCopies; ++copy) {
      ++bins[(copy << kTopDigitBits) + static_cast<int64_t>(key_of(x[i + copy]) >> kShift)];
    }
  }
  for (; i < n; ++i) {
    ++bins[key_of(x[i]) >> kShift];
  }
}

template <typename Bits>
void count_next_digits(const Bits* x, int64_t n, Bits prefix, int shift, uint32_t* bins) {
  constexpr Bits kDigit = static_cast<Bits>((uint32_t{1} << kDigitBits) - 1);
  const int above = shift + kDigitBits;
  // Few keys have the prefix: whole blocks are passed over with vector compares.
  constexpr int64_t kBlock = 32;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = begin + kBlock < n ? begin + kBlock : n;
    Bits any = 0;
    for (int64_t i = begin; i < end; ++i) {
      any |= static_cast<Bits>((key_of(x[i]) >> above) == prefix);
    }
    if (any == 0) {
      continue;
    }
    for (int64_t i = begin; i < end; ++i) {
      const Bits key = key_of(x[i]);
      if ((key >> above) == prefix) {
        ++bins[(key >> shift) & kDigit];
      }
    }
  }
}

template <typename Bits>
int64_t count_equal(const Bits* x, int64_t n, Bits key) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    count += key_of(x[i]) == key;
  }
  return count;
}

template <typename Bits>
void keep_from(const Bits* x, int64_t n, Bits lowest, bool* keep) {
  for (int64_t i = 0; i < n; ++i) {
    keep[i] = key_of(x[i]) >= lowest;
  }
}

template <typename Bits>
void keep_after_quota(const Bits* x, int64_t n, Bits threshold, int64_t quota, bool* keep) {
  for (int64_t i = 0; i < n; ++i) {
    const Bits key = key_of(x[i]);
    const bool tie = key == threshold;
    keep[i] = key > threshold || (tie && quota <= 0);
    quota -= tie;
  }
}

template <typename Bits>
void zero_pruned(Bits* x, const bool* keep, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    x[i] &= static_cast<Bits>(-static_cast<Bits>(keep[i]));  // all ones or none: no branch, so it is vectorised
  }
}

#define TORCHSLIM_MAGNITUDE_KERNELS(Bits)                                      \
  template void count_top_digits(const Bits*, int64_t, uint32_t*);             \
  template void count_next_digits(const Bits*, int64_t, Bits, int, uint32_t*); \
  template int64_t count_equal(const Bits*, int64_t, Bits);                    \
  template void keep_from(const Bits*, int64_t, Bits, bool*);                  \
  template void keep_after_quota(const Bits*, int64_t, Bits, int64_t, bool*);  \
  template void zero_pruned(Bits*, const bool*, int64_t);

TORCHSLIM_MAGNITUDE_KERNELS(uint16_t)
TORCHSLIM_MAGNITUDE_KERNELS(uint32_t)
TORCHSLIM_MAGNITUDE_KERNELS(uint64_t)

}  // namespace torchslim::CPU_CAPABILITY
