// SPDX-License-Identifier: BSD-3-Clause
#include "quant/level_fake_quantize_kernel.h"

#include "quant/scaled_runs.h"

namespace torchslim::CPU_CAPABILITY {
namespace {

// The search for one number: no branch depends on it.
template <typename A>
struct Levels {
  const A* thresholds;
  const float* levels;
  int depth;
  A lowest, highest;

  explicit Levels(const quant::LevelTree& tree)
      : levels(tree.levels), depth(tree.depth), lowest(tree.lowest), highest(tree.highest) {
    if constexpr (std::is_same_v<A, double>) {
      thresholds = tree.wide_thresholds;
    } else {
      thresholds = tree.thresholds;
    }
  }

  TORCHSLIM_INLINE A nearest(A v) const {
    int64_t node = 1;
    for (int step = 0; step < depth; ++step) {
      node = 2 * node + (v > thresholds[node]);
    }
    const A level = levels[node - (int64_t{1} << depth)];
    return v == v ? level : v;
  }
  TORCHSLIM_INLINE bool passes(A v, A) const { return v >= lowest && v <= highest; }
};

#ifdef CPU_CAPABILITY_AVX2
// Eight searches at once. The first four steps look thresholds up in registers; `kSmall` says that there are no more.
template <bool kSmall>
struct LevelLanes : Levels<float> {
  using Lanes = at::vec::Vectorized<float>;
  using Levels<float>::nearest;
  using Levels<float>::passes;

  static constexpr int kInRegisters = 4;
  __m256 stage[kInRegisters];  // the thresholds of nodes 2^k to 2^(k+1), repeated
  __m256 even, odd;            // kSmall: levels 0, 2, .. 14 and 1, 3, .. 15
  __m256 lowest_lanes, highest_lanes;

  explicit LevelLanes(const quant::LevelTree& tree)
      : Levels<float>(tree), lowest_lanes(_mm256_set1_ps(lowest)), highest_lanes(_mm256_set1_ps(highest)) {
    float lanes[3][8];
    for (int k = 0; k < kInRegisters; ++k) {
      for (int i = 0; i < 8; ++i) {
        lanes[0][i] = thresholds[(1 << k) + i % (1 << k)];
      }
      stage[k] = _mm256_loadu_ps(lanes[0]);
    }
    for (int i = 0; i < 8; ++i) {
      lanes[1][i] = levels[2 * i];
      lanes[2][i] = levels[2 * i + 1];
    }
    even = _mm256_loadu_ps(lanes[1]);
    odd = _mm256_loadu_ps(lanes[2]);
  }

  TORCHSLIM_INLINE static __m256 above(__m256 v, __m256 threshold) { return _mm256_cmp_ps(v, threshold, _CMP_GT_OQ); }
  // 2 · place + 1 where `mask` is set.
  TORCHSLIM_INLINE static __m256i descend(__m256i place, __m256 mask) {
    return _mm256_sub_epi32(_mm256_add_epi32(place, place), _mm256_castps_si256(mask));
  }

  // Eight plain loads: a gather instruction takes longer on CPUs that guard it against leaks.
  TORCHSLIM_INLINE static __m256 look_up(const float* table, __m256i place) {
    const auto at = [&](uint64_t two, int half) { return table[static_cast<uint32_t>(two >> (32 * half))]; };
    const uint64_t a = _mm256_extract_epi64(place, 0), b = _mm256_extract_epi64(place, 1);
    const uint64_t c = _mm256_extract_epi64(place, 2), d = _mm256_extract_epi64(place, 3);
    return _mm256_setr_ps(at(a, 0), at(a, 1), at(b, 0), at(b, 1), at(c, 0), at(c, 1), at(d, 0), at(d, 1));
  }

  TORCHSLIM_INLINE Lanes nearest(const Lanes& v) const {
    __m256i place = _mm256_srli_epi32(_mm256_castps_si256(above(v, stage[0])), 31);
    for (int k = 1; k < kInRegisters - 1; ++k) {
      place = descend(place, above(v, _mm256_permutevar8x32_ps(stage[k], place)));
    }
    const __m256 last = above(v, _mm256_permutevar8x32_ps(stage[kInRegisters - 1], place));
    __m256 level;
    if constexpr (kSmall) {
      level = _mm256_blendv_ps(_mm256_permutevar8x32_ps(even, place), _mm256_permutevar8x32_ps(odd, place), last);
    } else {
      place = descend(place, last);
      for (int step = kInRegisters; step < depth; ++step) {
        place = descend(place, above(v, look_up(thresholds + (int64_t{1} << step), place)));
      }
      level = look_up(levels, place);
    }
    return _mm256_blendv_ps(level, v, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  }

  TORCHSLIM_INLINE Lanes passes(const Lanes& v, const Lanes&) const {
    return _mm256_and_ps(_mm256_cmp_ps(v, lowest_lanes, _CMP_GE_OQ), _mm256_cmp_ps(v, highest_lanes, _CMP_LE_OQ));
  }
};
#endif

}  // namespace

template <typename T>
void level_span(const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, const quant::Scales& scales,
                const quant::LevelTree& tree, bool stream) {
  if constexpr (!kHasLanes<T>) {
    quantize_span(x, y, cut, begin, end, scales, Levels<Acc<T>>(tree), stream);
#ifdef CPU_CAPABILITY_AVX2
  } else if (tree.depth == LevelLanes<true>::kInRegisters) {
    quantize_span(x, y, cut, begin, end, scales, LevelLanes<true>(tree), stream);
  } else {
    quantize_span(x, y, cut, begin, end, scales, LevelLanes<false>(tree), stream);
#endif
  }
}

#define TORCHSLIM_INSTANTIATE(T)                                                                                    \
  template void level_span(const T*, T*, uint8_t*, int64_t, int64_t, const quant::Scales&, const quant::LevelTree&, \
                           bool);
TORCHSLIM_INSTANTIATE(float)
TORCHSLIM_INSTANTIATE(double)
TORCHSLIM_INSTANTIATE(c10::BFloat16)
TORCHSLIM_INSTANTIATE(c10::Half)
#undef TORCHSLIM_INSTANTIATE

}  // namespace torchslim::CPU_CAPABILITY
