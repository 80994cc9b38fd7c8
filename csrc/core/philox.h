// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/rounding.h"

#ifdef CPU_CAPABILITY_AVX2
#include <immintrin.h>
#endif

namespace torchslim::core {

/// Random numbers as a function of a seed and a position: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
/// easy as 1, 2, 3"). Whoever asks for number i gets the same one, on any thread and with any instruction set.
constexpr int64_t kPhiloxGroup = 32;

/// Writes the 32 words of group `group`: word 8·w + lane is word w of counter 8·group + lane.
TORCHSLIM_INLINE void philox_words(uint64_t seed, uint64_t group, uint32_t (&words)[4][8]) {
  constexpr uint64_t kFactor[2] = {0xD2511F53, 0xCD9E8D57};
  constexpr uint32_t kStep[2] = {0x9E3779B9, 0xBB67AE85};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (uint32_t lane = 0; lane < 8; ++lane) {
    const uint64_t counter = 8 * group + lane;
    words[0][lane] = static_cast<uint32_t>(counter);
    words[1][lane] = static_cast<uint32_t>(counter >> 32);
    words[2][lane] = words[3][lane] = 0;
  }
  for (int round = 0; round < 10; ++round) {
    for (int lane = 0; lane < 8; ++lane) {
      const uint64_t a = kFactor[0] * words[0][lane];
      const uint64_t b = kFactor[1] * words[2][lane];
      words[0][lane] = static_cast<uint32_t>(b >> 32) ^ words[1][lane] ^ key[0];
      words[1][lane] = static_cast<uint32_t>(b);
      words[2][lane] = static_cast<uint32_t>(a >> 32) ^ words[3][lane] ^ key[1];
      words[3][lane] = static_cast<uint32_t>(a);
    }
    key[0] += kStep[0];
    key[1] += kStep[1];
  }
}

#ifdef CPU_CAPABILITY_AVX2
// The low and high halves of factor · x, lane by lane.
TORCHSLIM_INLINE void multiply_wide(__m256i factor, __m256i x, __m256i* low, __m256i* high) {
  const __m256i even = _mm256_mul_epu32(factor, x);
  const __m256i odd = _mm256_mul_epu32(factor, _mm256_srli_epi64(x, 32));
  *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0b10101010);
  *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0b10101010);
}

// philox_words, eight lanes at once.
TORCHSLIM_INLINE void philox_lanes(uint64_t seed, uint64_t group, __m256i (&words)[4]) {
  const __m256i factor[2] = {_mm256_set1_epi64x(0xD2511F53), _mm256_set1_epi64x(0xCD9E8D57)};
  const __m256i step[2] = {_mm256_set1_epi32(static_cast<int>(0x9E3779B9)),
                           _mm256_set1_epi32(static_cast<int>(0xBB67AE85))};
  __m256i key[2] = {_mm256_set1_epi32(static_cast<int>(seed)), _mm256_set1_epi32(static_cast<int>(seed >> 32))};
  const uint64_t counter = 8 * group;  // adding a lane cannot carry
  words[0] = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(counter)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  words[1] = _mm256_set1_epi32(static_cast<int>(counter >> 32));
  words[2] = words[3] = _mm256_setzero_si256();
  for (int round = 0; round < 10; ++round) {
    __m256i a_low, a_high, b_low, b_high;
    multiply_wide(factor[0], words[0], &a_low, &a_high);
    multiply_wide(factor[1], words[2], &b_low, &b_high);
    words[0] = _mm256_xor_si256(_mm256_xor_si256(b_high, words[1]), key[0]);
    words[2] = _mm256_xor_si256(_mm256_xor_si256(a_high, words[3]), key[1]);
    words[1] = b_low;
    words[3] = a_low;
    key[0] = _mm256_add_epi32(key[0], step[0]);
    key[1] = _mm256_add_epi32(key[1], step[1]);
  }
}
#endif

/// Writes numbers [32·group, 32·group + 32) of the sequence, each a multiple of 2^-24 in [0, 1).
TORCHSLIM_INLINE void philox_uniform(uint64_t seed, uint64_t group, float* to) {
#ifdef CPU_CAPABILITY_AVX2
  __m256i words[4];
  philox_lanes(seed, group, words);
  for (int word = 0; word < 4; ++word) {
    const __m256 whole = _mm256_cvtepi32_ps(_mm256_srli_epi32(words[word], 8));
    _mm256_storeu_ps(to + 8 * word, _mm256_mul_ps(whole, _mm256_set1_ps(0x1p-24f)));
  }
#else
  uint32_t words[4][8];
  philox_words(seed, group, words);
  for (int word = 0; word < 4; ++word) {
    for (int lane = 0; lane < 8; ++lane) {
      to[8 * word + lane] = static_cast<float>(words[word][lane] >> 8) * 0x1p-24f;
    }
  }
#endif
}

}  // namespace torchslim::core
