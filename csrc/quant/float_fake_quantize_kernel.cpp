// SPDX-License-Identifier: BSD-3-Clause
#include "quant/float_fake_quantize_kernel.h"

#include <cmath>

#include "quant/scaled_runs.h"

namespace torchslim::CPU_CAPABILITY {
namespace {

// |x| as the bits of a float32, which order as the numbers do; 0 if it is not finite.
template <typename T>
TORCHSLIM_INLINE uint32_t magnitude_bits(T x) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  const uint32_t bits = __builtin_bit_cast(uint32_t, static_cast<float>(x)) & 0x7fffffffu;
  return bits < kInfinity ? bits : 0;
}

TORCHSLIM_INLINE uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

#ifdef CPU_CAPABILITY_AVX2
// The same of a vector.
TORCHSLIM_INLINE __m256i magnitude_lanes(__m256 x) {
  const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
  return _mm256_and_si256(bits, _mm256_cmpgt_epi32(_mm256_set1_epi32(0x7f800000), bits));
}
#endif

// The largest magnitude of neighbouring elements.
template <typename T>
uint32_t largest_bits(const T* x, int64_t n) {
  uint32_t largest = 0;
  int64_t i = 0;
#ifdef CPU_CAPABILITY_AVX2
  if constexpr (kHasLanes<T>) {
    __m256i lanes = _mm256_setzero_si256();
    for (; i + kBlock<T> <= n; i += kBlock<T>) {
      const Block<T> block(x + i);
      for (const auto& part : block.part) {
        lanes = _mm256_max_epu32(lanes, magnitude_lanes(part));
      }
    }
    const __m128i four = _mm_max_epu32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    const __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    largest = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 1))));
  }
#endif
  for (; i < n; ++i) {
    largest = larger(largest, magnitude_bits(x[i]));
  }
  return largest;
}

// Raises the largest magnitudes of columns to those of a row.
template <typename T>
void see_row(const T* from, int64_t width, uint32_t* largest) {
  int64_t j = 0;
#ifdef CPU_CAPABILITY_AVX2
  if constexpr (kHasLanes<T>) {
    for (; j + kBlock<T> <= width; j += kBlock<T>) {
      const Block<T> block(from + j);
      for (int k = 0; k < kVectors<T>; ++k) {
        auto* lanes = reinterpret_cast<__m256i*>(largest + j + 8 * k);
        _mm256_storeu_si256(lanes, _mm256_max_epu32(_mm256_loadu_si256(lanes), magnitude_lanes(block.part[k])));
      }
    }
  }
#endif
  for (; j < width; ++j) {
    largest[j] = larger(largest[j], magnitude_bits(from[j]));
  }
}

// 2^exponent for -127 ≤ exponent ≤ 127; the lowest is subnormal.
TORCHSLIM_INLINE float power_of_two(int exponent) {
  const uint32_t bits = exponent == -127 ? 0x00400000u : static_cast<uint32_t>(exponent + 127) << 23;
  return __builtin_bit_cast(float, bits);
}

TORCHSLIM_INLINE void set_scale(uint32_t largest, int exponent, float* scale, float* inverse_scale) {
  const int wanted = static_cast<int>(largest >> 23) - 127 - exponent;
  const int shared = wanted < -127 ? -127 : (wanted > 127 ? 127 : wanted);
  *scale = power_of_two(shared);
  *inverse_scale = power_of_two(-shared);
}

}  // namespace

template <typename T>
void float_span(const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, const quant::Scales& scales,
                const quant::FloatGrid& grid, bool stream) {
  quantize_span(x, y, cut, begin, end, scales, FloatRoundingLanes{{grid}}, stream);
}

template <typename T>
void block_scales(const T* x, int64_t begin, int64_t end, int64_t block, int64_t inner, int exponent, float* scale,
                  float* inverse_scale) {
  if (inner == 1) {
    for (int64_t unit = begin; unit < end; ++unit) {
      set_scale(largest_bits(x + unit * block, block), exponent, scale + unit, inverse_scale + unit);
    }
    return;
  }
  constexpr int64_t kTile = 64;  // columns whose largest magnitudes stay in registers or L1
  for (int64_t unit = begin; unit < end; ++unit) {
    for (int64_t first = 0; first < inner; first += kTile) {
      const int64_t width = std::min(kTile, inner - first);
      uint32_t largest[kTile] = {};
      for (int64_t row = 0; row < block; ++row) {
        const T* from = x + (unit * block + row) * inner + first;
        see_row(from, width, largest);
      }
      for (int64_t j = 0; j < width; ++j) {
        const int64_t at = unit * inner + first + j;
        set_scale(largest[j], exponent, scale + at, inverse_scale + at);
      }
    }
  }
}

#define TORCHSLIM_INSTANTIATE(T)                                                                                    \
  template void float_span(const T*, T*, uint8_t*, int64_t, int64_t, const quant::Scales&, const quant::FloatGrid&, \
                           bool);                                                                                   \
  template void block_scales(const T*, int64_t, int64_t, int64_t, int64_t, int, float*, float*);
TORCHSLIM_INSTANTIATE(float)
TORCHSLIM_INSTANTIATE(double)
TORCHSLIM_INSTANTIATE(c10::BFloat16)
TORCHSLIM_INSTANTIATE(c10::Half)
#undef TORCHSLIM_INSTANTIATE

}  // namespace torchslim::CPU_CAPABILITY
