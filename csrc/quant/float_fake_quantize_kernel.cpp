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

// The largest magnitude of neighbouring elements.
template <typename T>
uint32_t largest_bits(const T* x, int64_t n) {
  constexpr int kWays = 16;
  uint32_t ways[kWays] = {};
  int64_t i = 0;
  for (; i + kWays <= n; i += kWays) {
    for (int way = 0; way < kWays; ++way) {
      ways[way] = larger(ways[way], magnitude_bits(x[i + way]));
    }
  }
  uint32_t largest = 0;
  for (const uint32_t way : ways) {
    largest = larger(largest, way);
  }
  for (; i < n; ++i) {
    largest = larger(largest, magnitude_bits(x[i]));
  }
  return largest;
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
        for (int64_t j = 0; j < width; ++j) {
          largest[j] = larger(largest[j], magnitude_bits(from[j]));
        }
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
