// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "quant/kernel_blocks.h"
#include "quant/scales.h"

// How kernels walk y = scale · nearest(x · (1/scale)). For kernels only: it is compiled once per instruction set.
//
// A quantizer of T has, for one number of type Acc<T> and (kHasLanes) for a vector of them,
//   nearest(v)             the value that v becomes; NaN stays
//   passes(v, nearest)     whether the gradient passes: bool, or lanes of ones and zeros
// and, if v is not x · (1/scale),
//   prepared(x, inverse)   v, where `inverse` is what stands in the place of 1 / scale
namespace torchslim::CPU_CAPABILITY {

// Whether elements of type T are quantised as vectors.
#ifdef CPU_CAPABILITY_AVX2
template <typename T>
constexpr bool kHasLanes = !std::is_same_v<T, double>;
#else
template <typename T>
constexpr bool kHasLanes = false;
#endif

template <typename Quantizer, typename V>
TORCHSLIM_INLINE auto prepared(const Quantizer& quantizer, const V& x, const V& inverse) {
  if constexpr (requires { quantizer.prepared(x, inverse); }) {
    return quantizer.prepared(x, inverse);
  } else {
    return V(x * inverse);
  }
}

// One scale for all elements of a row.
template <typename T>
struct SameScale {
  Vec<T> inverse_lanes, scale_lanes;
  Acc<T> inverse_scale, scale;

  SameScale(const quant::Scales& scales, int64_t row)
      : inverse_lanes(scales.inverse_scale[row]),
        scale_lanes(scales.scale[row]),
        inverse_scale(scales.inverse_scale[row]),
        scale(scales.scale[row]) {}

  TORCHSLIM_INLINE const Vec<T>& inverse_vector(int64_t) const { return inverse_lanes; }
  TORCHSLIM_INLINE const Vec<T>& scale_vector(int64_t) const { return scale_lanes; }
  TORCHSLIM_INLINE Acc<T> inverse_at(int64_t) const { return inverse_scale; }
  TORCHSLIM_INLINE Acc<T> scale_at(int64_t) const { return scale; }
};

// A scale for each element of a row.
template <typename T>
struct NeighbourScales {
  const float* inverse_scale;
  const float* scale;

  TORCHSLIM_INLINE Vec<T> inverse_vector(int64_t i) const { return Vec<T>::loadu(inverse_scale + i); }
  TORCHSLIM_INLINE Vec<T> scale_vector(int64_t i) const { return Vec<T>::loadu(scale + i); }
  TORCHSLIM_INLINE Acc<T> inverse_at(int64_t i) const { return inverse_scale[i]; }
  TORCHSLIM_INLINE Acc<T> scale_at(int64_t i) const { return scale[i]; }
};

// Quantises a block and returns its cut bits, lane 0 lowest (0 if `kCut` is false).
template <bool kCut, typename T, typename Quantizer, typename Scale>
TORCHSLIM_INLINE uint32_t quantize_block(const T* x, T* y, int64_t i, const Scale& scale, const Quantizer& quantizer,
                                         const Store& store) {
  Block<T> block(x + i);
  uint32_t cut = 0;
  for (int k = 0; k < kVectors<T>; ++k) {
    auto& part = block.part[k];
    const int64_t first = i + k * Vec<T>::size();
    const auto v = prepared(quantizer, part, Vec<T>(scale.inverse_vector(first)));
    const Vec<T> nearest = quantizer.nearest(v);
    if constexpr (kCut) {
      cut |= static_cast<uint32_t>(quantizer.passes(v, nearest).zero_mask()) << (k * Vec<T>::size());
    }
    part = nearest * scale.scale_vector(first);
  }
  block.write(store, y + i);
  return cut;
}

// Quantises the n elements of a row: groups of 32 (one word of bits), then blocks, then single elements.
template <typename T, typename Quantizer, typename Scale, typename Bits>
void quantize_row(const T* x, T* y, int64_t n, const Scale& scale, const Quantizer& quantizer,
                  [[maybe_unused]] bool stream, Bits& bits) {
  int64_t i = 0;
  if constexpr (kHasLanes<T>) {
    constexpr bool kCut = !std::is_same_v<Bits, NoBits>;
    constexpr int64_t kGroup = 32;
    const Store store(stream, y);
    for (; i + kGroup <= n; i += kGroup) {
      uint32_t cut = 0;
      for (int64_t k = 0; k < kGroup; k += kBlock<T>) {
        cut |= quantize_block<kCut>(x, y, i + k, scale, quantizer, store) << k;
      }
      bits.push(cut, kGroup);
    }
    for (; i + kBlock<T> <= n; i += kBlock<T>) {
      bits.push(quantize_block<kCut>(x, y, i, scale, quantizer, store), kBlock<T>);
    }
  }
  for (; i < n; ++i) {
    const auto v = prepared(quantizer, static_cast<Acc<T>>(x[i]), scale.inverse_at(i));
    const Acc<T> nearest = quantizer.nearest(v);
    bits.push(!quantizer.passes(v, nearest), 1);
    y[i] = static_cast<T>(nearest * scale.scale_at(i));
  }
}

// Quantises elements [begin, end) of x into y. If `cut` is not null, bit i of it becomes 1 where the gradient of element i
// is cut; `begin` must then be a multiple of 8.
template <typename T, typename Quantizer, typename Bits>
void quantize_rows(const T* x, T* y, int64_t begin, int64_t end, const quant::Scales& scales,
                   const Quantizer& quantizer, bool stream, Bits bits) {
  // Rows can be as short as a block of 16: no division for each.
  const int64_t line = begin / scales.run;
  int64_t offset = begin % scales.run;
  int64_t turn = line % scales.repeat;
  int64_t group = line / scales.repeat % scales.groups;
  for (int64_t i = begin; i < end;) {
    const int64_t run = std::min(scales.run - offset, end - i);
    if (scales.neighbours) {
      const int64_t first = group * scales.run + offset;
      const NeighbourScales<T> scale{scales.inverse_scale + first, scales.scale + first};
      quantize_row(x + i, y + i, run, scale, quantizer, stream, bits);
    } else {
      quantize_row(x + i, y + i, run, SameScale<T>(scales, group), quantizer, stream, bits);
    }
    i += run;
    offset = 0;
    if (++turn == scales.repeat) {
      turn = 0;
      group = group + 1 == scales.groups ? 0 : group + 1;
    }
  }
  bits.flush();
  Store(stream, nullptr).finish();  // once: rows can be short
}

template <typename T, typename Quantizer>
void quantize_span(const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, const quant::Scales& scales,
                   const Quantizer& quantizer, bool stream) {
  if (cut == nullptr) {
    quantize_rows(x, y, begin, end, scales, quantizer, stream, NoBits());
  } else {
    quantize_rows(x, y, begin, end, scales, quantizer, stream, BitWriter(cut + begin / 8));
  }
}

}  // namespace torchslim::CPU_CAPABILITY
