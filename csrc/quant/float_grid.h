// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#ifdef CPU_CAPABILITY
#include "quant/kernel_blocks.h"
#endif

namespace torchslim::quant {

/// A floating-point format as kernels round to it, in the bits of float32.
struct FloatGrid {
  int32_t shift;  // mantissa bits of float32 that are dropped, 1 to 23
  int32_t odd;    // 1 where an even code has an odd last bit in float32 (formats without mantissa), else 0
  float smallest_normal;
  float magic;     // x + magic has the subnormals' last place, so that the addition rounds
  float limit;     // the largest number that rounds without becoming too large
  float overflow;  // what larger numbers become: the largest of the format, infinity or NaN
};

}  // namespace torchslim::quant

#ifdef CPU_CAPABILITY
namespace torchslim::CPU_CAPABILITY {

/// Rounds to a format, half to even; NaN stays. See scaled_runs.h for what a quantizer is.
struct FloatRounding {
  quant::FloatGrid grid;

  TORCHSLIM_INLINE float nearest(float v) const {
    const uint32_t bits = __builtin_bit_cast(uint32_t, v);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const float size = __builtin_bit_cast(float, magnitude);
    const uint32_t odd = (magnitude >> grid.shift ^ static_cast<uint32_t>(grid.odd)) & 1;
    const uint32_t below_half = (1u << (grid.shift - 1)) - 1;
    const uint32_t normal = (magnitude + below_half + odd) >> grid.shift << grid.shift;
    const float subnormal = (size + grid.magic) - grid.magic;
    const float number = size < grid.smallest_normal ? subnormal : __builtin_bit_cast(float, normal);
    const float result = size <= grid.limit ? number : grid.overflow;
    const float with_sign = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, result) | (bits & 0x80000000u));
    return v == v ? with_sign : v;
  }
  TORCHSLIM_INLINE bool passes(float v, float) const { return std::fabs(v) <= grid.limit; }

  TORCHSLIM_INLINE double nearest(double v) const { return nearest(static_cast<float>(v)); }
  TORCHSLIM_INLINE bool passes(double v, double) const { return passes(static_cast<float>(v), 0.0f); }
};

#ifdef CPU_CAPABILITY_AVX2
/// The same for eight numbers.
struct FloatRoundingLanes : FloatRounding {
  using Lanes = at::vec::Vectorized<float>;
  using FloatRounding::nearest;
  using FloatRounding::passes;

  TORCHSLIM_INLINE static __m256 magnitude(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

  TORCHSLIM_INLINE Lanes nearest(const Lanes& v) const {
    const __m256 size = magnitude(v);
    const __m256i bits = _mm256_castps_si256(size);
    const __m128i shift = _mm_cvtsi32_si128(grid.shift);
    const __m256i last = _mm256_xor_si256(_mm256_srl_epi32(bits, shift), _mm256_set1_epi32(grid.odd));
    const __m256i odd = _mm256_and_si256(last, _mm256_set1_epi32(1));
    const __m256i below_half = _mm256_set1_epi32((1 << (grid.shift - 1)) - 1);
    const __m256i raised = _mm256_add_epi32(_mm256_add_epi32(bits, below_half), odd);
    const __m256i normal = _mm256_sll_epi32(_mm256_srl_epi32(raised, shift), shift);
    const __m256 magic = _mm256_set1_ps(grid.magic);
    const __m256 subnormal = _mm256_sub_ps(_mm256_add_ps(size, magic), magic);
    const __m256 is_subnormal = _mm256_cmp_ps(size, _mm256_set1_ps(grid.smallest_normal), _CMP_LT_OQ);
    const __m256 number = _mm256_blendv_ps(_mm256_castsi256_ps(normal), subnormal, is_subnormal);
    const __m256 fits = _mm256_cmp_ps(size, _mm256_set1_ps(grid.limit), _CMP_LE_OQ);
    const __m256 result = _mm256_blendv_ps(_mm256_set1_ps(grid.overflow), number, fits);
    const __m256 with_sign = _mm256_or_ps(result, _mm256_and_ps(v, _mm256_set1_ps(-0.0f)));
    return _mm256_blendv_ps(with_sign, v, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  }

  TORCHSLIM_INLINE Lanes passes(const Lanes& v, const Lanes&) const {
    return _mm256_cmp_ps(magnitude(v), _mm256_set1_ps(grid.limit), _CMP_LE_OQ);
  }
};
#else
using FloatRoundingLanes = FloatRounding;
#endif

}  // namespace torchslim::CPU_CAPABILITY
#endif
