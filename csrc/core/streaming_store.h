// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/cpu/vec/vec.h>

#include <cstdint>

#include "core/rounding.h"

namespace torchslim::CPU_CAPABILITY {

// Stores vectors, past the cache where it was asked for, the address allows it and the instruction set can.
class Store {
 public:
  // `to` is where the first vector goes; the others follow it without a gap.
  Store(bool stream, const void* to) : stream_(stream && reinterpret_cast<uintptr_t>(to) % kAlignment == 0) {}

  template <typename T>
  TORCHSLIM_INLINE void operator()(const at::vec::Vectorized<T>& value, T* to) const {
#ifdef CPU_CAPABILITY_AVX2
    if (stream_) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bits(value));
      return;
    }
#endif
    value.store(to);
  }

  // Orders what was streamed before whatever follows.
  void finish() const {
#ifdef CPU_CAPABILITY_AVX2
    if (stream_) {
      _mm_sfence();
    }
#endif
  }

 private:
  static constexpr uintptr_t kAlignment = 32;

#ifdef CPU_CAPABILITY_AVX2
  TORCHSLIM_INLINE static __m256i bits(__m256 value) { return _mm256_castps_si256(value); }
  TORCHSLIM_INLINE static __m256i bits(__m256d value) { return _mm256_castpd_si256(value); }
  TORCHSLIM_INLINE static __m256i bits(__m256i value) { return value; }
#endif

  bool stream_;
};

}  // namespace torchslim::CPU_CAPABILITY
