// SPDX-License-Identifier: BSD-3-Clause
#include "quant/observe_kernel.h"

#include <ATen/cpu/vec/vec.h>

#include <limits>
#include <type_traits>

#include "core/rounding.h"

namespace torchslim::CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t kBlock = 32;  // a multiple of every Vec::size()

// Returns x as float32: itself, or converted into `room`.
template <typename T>
TORCHSLIM_INLINE const float* as_float(const T* x, float* room) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    for (int64_t i = 0; i < kBlock; ++i) {
      room[i] = static_cast<float>(x[i]);
    }
    return room;
  }
}

// The bin of one value; `bins` if it lies in none. A product with a power of two is exact unless it underflows, and then
// its sign still says on which side of 0 the value lies.
TORCHSLIM_INLINE int32_t bin_of(float x, const quant::BinSpan& span) {
  const float widths = x * span.inverse_width;
  const float nearest = core::round_half_even(widths);
  const bool above = nearest > widths || (nearest == 0.0f && x < 0.0f);
  const float bin = (above ? nearest - 1.0f : nearest) - span.first;
  return bin >= 0.0f && bin < static_cast<float>(span.bins) ? static_cast<int32_t>(bin) : span.bins;
}

// The bins of a vector.
struct VectorBins {
  Vec inverse_width, first;
  int32_t bins;

  explicit VectorBins(const quant::BinSpan& span)
      : inverse_width(span.inverse_width), first(span.first), bins(span.bins) {}

#ifdef CPU_CAPABILITY_AVX2
  TORCHSLIM_INLINE __m256i of(const float* from) const {
    const Vec x = Vec::loadu(from);
    const Vec down = (x * inverse_width).floor();
    const Vec underflowed = (down == Vec(0.0f)) & (x < Vec(0.0f));
    const __m256i bin = _mm256_cvttps_epi32(down - (underflowed & Vec(1.0f)) - first);
    // What no int32 holds, as NaN, has become 0x80000000, and what is negative is larger yet as unsigned.
    return _mm256_min_epu32(bin, _mm256_set1_epi32(bins));
  }

  // Two bins leave a vector at a time: through memory they would cost as much as counting them.
  TORCHSLIM_INLINE void count(const float* from, uint32_t* even, uint32_t* odd) const {
    const __m256i bin = of(from);
    count_two(_mm256_extract_epi64(bin, 0), even, odd);
    count_two(_mm256_extract_epi64(bin, 1), even, odd);
    count_two(_mm256_extract_epi64(bin, 2), even, odd);
    count_two(_mm256_extract_epi64(bin, 3), even, odd);
  }

 private:
  TORCHSLIM_INLINE static void count_two(uint64_t two, uint32_t* even, uint32_t* odd) {
    ++even[static_cast<uint32_t>(two)];
    ++odd[two >> 32];
  }
#else
  TORCHSLIM_INLINE void count(const float* from, uint32_t* even, uint32_t* odd) const {
    const Vec x = Vec::loadu(from);
    const Vec widths = x * inverse_width;
    const Vec nearest = core::round_half_even(widths);
    const Vec above = (nearest > widths) | ((nearest == Vec(0.0f)) & (x < Vec(0.0f)));
    const Vec bin = nearest - (above & Vec(1.0f)) - first;
    const Vec none(static_cast<float>(bins));
    const Vec inside = (bin >= Vec(0.0f)) & (bin < none);
    int32_t places[Vec::size()];
    at::vec::convert_to_int_of_same_size(Vec::blendv(none, bin, inside)).store(places);
    for (int k = 0; k < Vec::size(); k += 2) {
      ++even[places[k]];
      ++odd[places[k + 1]];
    }
  }
#endif
};

}  // namespace

template <typename T>
void finite_range_span(const T* x, int64_t n, float* min, float* max) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  float low = std::numeric_limits<float>::infinity();
  float high = -low;
  for (int64_t i = 0; i < n; ++i) {
    const float value = static_cast<float>(x[i]);
    const bool finite = value >= -kLargest && value <= kLargest;
    low = finite && value < low ? value : low;
    high = finite && value > high ? value : high;
  }
  *min = low;
  *max = high;
}

template <typename T>
void column_range_span(const T* x, int64_t rows, int64_t width, float* low, float* high) {
  float room[kBlock];
  for (int64_t row = 0; row < rows; ++row, x += width) {
    int64_t j = 0;
    for (; j + kBlock <= width; j += kBlock) {
      const float* values = as_float(x + j, room);
      for (int64_t k = 0; k < kBlock; k += Vec::size()) {
        const Vec value = Vec::loadu(values + k);
        at::vec::minimum(Vec::loadu(low + j + k), value).store(low + j + k);
        at::vec::maximum(Vec::loadu(high + j + k), value).store(high + j + k);
      }
    }
    for (; j < width; ++j) {
      const float value = static_cast<float>(x[j]);
      low[j] = value != value || value < low[j] ? value : low[j];
      high[j] = value != value || value > high[j] ? value : high[j];
    }
  }
}

template <typename T>
void count_bins_span(const T* x, int64_t n, const quant::BinSpan& span, uint32_t* counts, int ways) {
  const VectorBins lanes(span);
  uint32_t* odd = ways == quant::kCountWays ? counts + span.bins + 1 : counts;
  float room[kBlock];
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    const float* values = as_float(x + i, room);
    for (int64_t k = 0; k < kBlock; k += Vec::size()) {
      lanes.count(values + k, counts, odd);
    }
  }
  for (; i < n; ++i) {
    ++counts[bin_of(static_cast<float>(x[i]), span)];
  }
}

#define TORCHSLIM_INSTANTIATE(T)                                               \
  template void finite_range_span(const T*, int64_t, float*, float*);          \
  template void column_range_span(const T*, int64_t, int64_t, float*, float*); \
  template void count_bins_span(const T*, int64_t, const quant::BinSpan&, uint32_t*, int);
TORCHSLIM_INSTANTIATE(float)
TORCHSLIM_INSTANTIATE(double)
TORCHSLIM_INSTANTIATE(c10::BFloat16)
TORCHSLIM_INSTANTIATE(c10::Half)
#undef TORCHSLIM_INSTANTIATE

}  // namespace torchslim::CPU_CAPABILITY
