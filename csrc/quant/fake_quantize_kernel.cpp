// SPDX-License-Identifier: BSD-3-Clause
#include "quant/fake_quantize_kernel.h"

#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "core/philox.h"
#include "core/rounding.h"
#include "quant/kernel_blocks.h"
#include "quant/kernel_grids.h"

namespace torchslim::CPU_CAPABILITY {
namespace {

// Rounds half to even; `i` counts elements from where the rounding began.
struct HalfEven {
  template <typename T, typename V>
  TORCHSLIM_INLINE V steps(const V& x, const core::StepGrid<V>& grid, int64_t) const {
    return core::steps_from_zero(x, grid);
  }
  HalfEven from(int64_t) const { return {}; }
};

// Rounds up with the probability of the fraction: element i where number i of `uniform` lies below it.
struct Stochastic {
  const float* uniform;

  template <typename T>
  TORCHSLIM_INLINE Vec<T> steps(const Vec<T>& x, const Grid<Vec<T>>& grid, int64_t i) const {
    const auto value = x * grid.inverse_scale;
    const auto nearest = core::round_half_even(value);
    const Vec<T> zero(0), one(1);
    const auto whole = nearest - Vec<T>::blendv(zero, one, nearest > value);
    return whole + Vec<T>::blendv(zero, one, load_floats<T>(uniform + i) < value - whole);
  }
  template <typename T>
  TORCHSLIM_INLINE Acc<T> steps(const Acc<T>& x, const Grid<Acc<T>>& grid, int64_t i) const {
    const auto value = x * grid.inverse_scale;
    const auto nearest = core::round_half_even(value);
    const auto whole = nearest - Acc<T>(nearest > value);
    return whole + Acc<T>(uniform[i] < value - whole);
  }
  Stochastic from(int64_t i) const { return {uniform + i}; }
};

// The open interval of x that a fused clamp lets gradients through.
template <typename V>
struct PassInterval {
  V above, below;
};

// Stands in for PassInterval where nothing is clamped.
struct PassAll {};

// Returns whether the gradient passes: where clamping to the grid changed nothing (so not for NaN), inside `pass`.
template <typename V, typename Pass>
TORCHSLIM_INLINE auto passes(const V& x, const V& steps, const core::StepGrid<V>& grid, const Pass& pass) {
  const auto inside = core::clamp(steps, grid.low, grid.high) == steps;
  if constexpr (std::is_same_v<Pass, PassAll>) {
    return inside;
  } else {
    return inside & (x > pass.above) & (x < pass.below);
  }
}

// Rounds float64 values to float32 and back.
TORCHSLIM_INLINE double through_float(double value) { return static_cast<float>(value); }
TORCHSLIM_INLINE at::vec::Vectorized<double> through_float(const at::vec::Vectorized<double>& value) {
#ifdef CPU_CAPABILITY_AVX2
  return _mm256_cvtps_pd(_mm256_cvtpd_ps(value));
#else
  constexpr int kLanes = at::vec::Vectorized<double>::size();
  double lanes[kLanes];
  float narrow[kLanes];  // a cast there and back in one expression is dropped by GCC 12 in some loops
  value.store(lanes);
  std::copy(lanes, lanes + kLanes, narrow);
  std::copy(narrow, narrow + kLanes, lanes);
  return at::vec::Vectorized<double>::loadu(lanes);
#endif
}

// Returns the value that is stored.
template <typename T, typename V>
TORCHSLIM_INLINE V stored(const V& value, const quant::ChannelGrids& grids) {
  if constexpr (std::is_same_v<T, double>) {
    return grids.float_values ? through_float(value) : value;
  } else {
    return value;
  }
}

// Fake-quantises a block and returns its cut bits, lane 0 lowest (0 if `kCut` is false).
template <bool kCut, typename T, typename Grids, typename Rounding, typename Pass>
TORCHSLIM_INLINE uint32_t quantize_block(const T* x, T* y, int64_t i, const Grids& grids, const Rounding& rounding,
                                         const Pass& pass, const quant::ChannelGrids& all, const Store& store) {
  Block<T> block(x + i);
  uint32_t cut = 0;
  for (int k = 0; k < kVectors<T>; ++k) {
    auto& part = block.part[k];
    const int64_t first = i + k * Vec<T>::size();
    const auto& grid = grids.vector(first);
    const auto steps = rounding.template steps<T>(part, grid, first);
    if constexpr (kCut) {
      cut |= static_cast<uint32_t>(passes(part, steps, grid, pass).zero_mask()) << (k * Vec<T>::size());
    }
    part = stored<T>(core::value_at(steps, grid), all);
  }
  block.write(store, y + i);
  return cut;
}

// Fake-quantises n elements: groups of 32 (one word of bits), then blocks, then single elements.
template <typename T, typename Grids, typename Rounding, typename Bits, typename LanesPass, typename Pass>
void quantize_run(const T* x, T* y, int64_t n, const Grids& grids, const Rounding& rounding,
                  const LanesPass& lanes_pass, const Pass& pass, const quant::ChannelGrids& all, bool stream,
                  Bits& bits) {
  const Store store(stream, y);
  constexpr bool kCut = !std::is_same_v<Bits, NoBits>;
  constexpr int64_t kGroup = 32;
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    uint32_t cut = 0;
    for (int64_t k = 0; k < kGroup; k += kBlock<T>) {
      cut |= quantize_block<kCut>(x, y, i + k, grids, rounding, lanes_pass, all, store) << k;
    }
    bits.push(cut, kGroup);
  }
  for (; i + kBlock<T> <= n; i += kBlock<T>) {
    bits.push(quantize_block<kCut>(x, y, i, grids, rounding, lanes_pass, all, store), kBlock<T>);
  }
  for (; i < n; ++i) {
    const auto value = static_cast<Acc<T>>(x[i]);
    const auto& grid = grids.scalar(i);
    const auto steps = rounding.template steps<T>(value, grid, i);
    bits.push(!passes(value, steps, grid, pass), 1);
    y[i] = static_cast<T>(stored<T>(core::value_at(steps, grid), all));
  }
}

// Walks [begin, end) in runs: elements of one channel, or (inner = 1) one element of each channel.
template <typename T, typename Rounding, typename Bits, typename LanesPass, typename Pass>
void quantize_runs(const T* x, T* y, int64_t begin, int64_t end, const Rounding& rounding, const LanesPass& lanes_pass,
                   const Pass& pass, const quant::ChannelGrids& all, bool stream, Bits bits) {
  const bool neighbours = all.inner == 1 && all.channels > 1;
  const int64_t row = neighbours ? all.channels : all.inner;
  for (int64_t i = begin; i < end;) {
    const int64_t offset = i % row;
    const int64_t run = std::min(row - offset, end - i);
    if (neighbours) {
      quantize_run(x + i, y + i, run, NeighbourGrids<T>{all, offset}, rounding.from(i - begin), lanes_pass, pass, all,
                   stream, bits);
    } else {
      quantize_run(x + i, y + i, run, SameGrid<T>(all, i / row % all.channels), rounding.from(i - begin), lanes_pass,
                   pass, all, stream, bits);
    }
    i += run;
  }
  Store(stream, nullptr).finish();  // once: a run may be a few elements
  bits.flush();
}

// Returns 1 in lane i where bit i is 0, and 0 where it is 1.
template <typename V>
TORCHSLIM_INLINE V kept_lanes(uint32_t cut_bits) {
#ifdef CPU_CAPABILITY_AVX2
  if constexpr (V::size() == 8) {
    const __m256i lane_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i cut = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(cut_bits)), lane_bit);
    return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(cut, lane_bit)), _mm256_set1_ps(1.0f));
  } else {
    const __m256i lane_bit = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i cut = _mm256_and_si256(_mm256_set1_epi64x(cut_bits), lane_bit);
    return _mm256_andnot_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(cut, lane_bit)), _mm256_set1_pd(1.0));
  }
#else
  typename V::value_type lanes[V::size()];
  for (int i = 0; i < V::size(); ++i) {
    lanes[i] = cut_bits >> i & 1 ? 0 : 1;
  }
  return V::loadu(lanes);
#endif
}

// Keeps the smallest and largest of what it saw; a NaN stays in both.
template <typename V>
struct Extremes {
  V min, max;

  TORCHSLIM_INLINE void see(const V& value) {
    min = at::vec::minimum(min, value);
    max = at::vec::maximum(max, value);
  }
};

template <typename A>
void see_one(A value, A* min, A* max) {
  *min = value != value || value < *min ? value : *min;
  *max = value != value || value > *max ? value : *max;
}

}  // namespace

template <typename T>
void fake_quantize_span(const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, const quant::ChannelGrids& grids,
                        bool stream) {
  const PassInterval<Acc<T>> pass{grids.pass_above, grids.pass_below};
  if (cut == nullptr) {
    quantize_runs(x, y, begin, end, HalfEven(), PassAll(), PassAll(), grids, stream, NoBits());
  } else if (pass.above == -std::numeric_limits<Acc<T>>::infinity() &&
             pass.below == std::numeric_limits<Acc<T>>::infinity()) {
    quantize_runs(x, y, begin, end, HalfEven(), PassAll(), PassAll(), grids, stream, BitWriter(cut + begin / 8));
  } else {
    const PassInterval<Vec<T>> lanes_pass{Vec<T>(pass.above), Vec<T>(pass.below)};
    quantize_runs(x, y, begin, end, HalfEven(), lanes_pass, pass, grids, stream, BitWriter(cut + begin / 8));
  }
}

template <typename T>
void fake_quantize_stochastic_span(const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end,
                                   const quant::ChannelGrids& grids, uint64_t seed, bool stream) {
  constexpr int64_t kTile = 32 * core::kPhiloxGroup;  // 4 kB of random numbers, which stay in the first-level cache
  float uniform[kTile];
  for (; begin < end; begin += kTile) {
    const int64_t tile_end = std::min(begin + kTile, end);
    for (int64_t i = begin; i < tile_end; i += core::kPhiloxGroup) {
      core::philox_uniform(seed, i / core::kPhiloxGroup, uniform + (i - begin));
    }
    if (cut == nullptr) {
      quantize_runs(x, y, begin, tile_end, Stochastic{uniform}, PassAll(), PassAll(), grids, stream, NoBits());
    } else {
      quantize_runs(x, y, begin, tile_end, Stochastic{uniform}, PassAll(), PassAll(), grids, stream,
                    BitWriter(cut + begin / 8));
    }
  }
}

template <typename T>
void cut_gradient_span(const T* dy, const uint8_t* cut, T* dx, int64_t begin, int64_t end, bool stream) {
  const Store store(stream, dx + begin);
  int64_t i = begin;
  for (; i + kBlock<T> <= end; i += kBlock<T>) {
    Block<T> block(dy + i);
    for (int k = 0; k < kVectors<T>; ++k) {
      const int64_t first = i + k * Vec<T>::size();
      block.part[k] = block.part[k] * kept_lanes<Vec<T>>(cut[first / 8] >> (first % 8));
    }
    block.write(store, dx + i);
  }
  for (; i < end; ++i) {
    const Acc<T> kept = cut[i / 8] >> (i % 8) & 1 ? 0 : 1;
    dx[i] = static_cast<T>(static_cast<Acc<T>>(dy[i]) * kept);
  }
  store.finish();
}

template <typename T>
void range_span(const T* x, int64_t n, float* min, float* max) {
  using A = Acc<T>;
  constexpr int kWays = 4;  // independent chains hide the latency of min and max
  A low = static_cast<A>(x[0]);
  A high = low;
  int64_t i = 0;
  if (n >= kWays * kBlock<T>) {
    Extremes<Vec<T>> ways[kWays];
    for (auto& way : ways) {
      way = {Vec<T>(low), Vec<T>(low)};
    }
    for (; i + kWays * kBlock<T> <= n; i += kWays * kBlock<T>) {
      for (int way = 0; way < kWays; ++way) {
        const Block<T> block(x + i + way * kBlock<T>);
        for (const auto& part : block.part) {
          ways[way].see(part);
        }
      }
    }
    for (const auto& way : ways) {
      A lanes[2][Vec<T>::size()];
      way.min.store(lanes[0]);
      way.max.store(lanes[1]);
      for (const auto& values : lanes) {
        for (const A value : values) {
          see_one(value, &low, &high);
        }
      }
    }
  }
  for (; i < n; ++i) {
    see_one(static_cast<A>(x[i]), &low, &high);
  }
  *min = static_cast<float>(low);
  *max = static_cast<float>(high);
}

#define TORCHSLIM_INSTANTIATE(T)                                                                                    \
  template void fake_quantize_span(const T*, T*, uint8_t*, int64_t, int64_t, const quant::ChannelGrids&, bool);     \
  template void fake_quantize_stochastic_span(const T*, T*, uint8_t*, int64_t, int64_t, const quant::ChannelGrids&, \
                                              uint64_t, bool);                                                      \
  template void cut_gradient_span(const T*, const uint8_t*, T*, int64_t, int64_t, bool);                            \
  template void range_span(const T*, int64_t, float*, float*);
TORCHSLIM_INSTANTIATE(float)
TORCHSLIM_INSTANTIATE(double)
TORCHSLIM_INSTANTIATE(c10::BFloat16)
TORCHSLIM_INSTANTIATE(c10::Half)
#undef TORCHSLIM_INSTANTIATE

}  // namespace torchslim::CPU_CAPABILITY
