// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/cpu/vec/vec.h>

#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "core/streaming_store.h"

// What element-wise kernels are made of: blocks of elements as float vectors, and bits. For kernels only: it is compiled
// once per instruction set.
namespace torchslim::CPU_CAPABILITY {

// The maths runs in float, for double in double. A block is the least number of elements that fills whole vectors.
template <typename T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;
template <typename T>
using Vec = at::vec::Vectorized<Acc<T>>;
template <typename T>
constexpr int kVectors = sizeof(T) == 2 ? 2 : 1;
template <typename T>
constexpr int64_t kBlock = kVectors<T> * Vec<T>::size();

template <typename T>
struct Block {
  Vec<T> part[kVectors<T>];

  explicit Block(const T* from) {
    if constexpr (kVectors<T> == 1) {
      part[0] = Vec<T>::loadu(from);
    } else {
      std::tie(part[0], part[1]) = at::vec::convert_to_float(at::vec::Vectorized<T>::loadu(from));
    }
  }

  TORCHSLIM_INLINE void write(const Store& store, T* to) const {
    if constexpr (kVectors<T> == 1) {
      store(part[0], to);
    } else {
      store(at::vec::convert_from_float<T>(part[0], part[1]), to);
    }
  }
};

// Appends bits to a byte array, lowest bit first.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* to) : to_(to) {}

  void push(uint32_t bits, int count) {
    pending_ |= uint64_t{bits} << count_;
    count_ += count;
    if (count_ >= 32) {
      std::memcpy(to_, &pending_, 4);
      to_ += 4;
      pending_ >>= 32;
      count_ -= 32;
    }
  }

  void flush() { std::memcpy(to_, &pending_, (count_ + 7) / 8); }

 private:
  uint8_t* to_;
  uint64_t pending_ = 0;
  int count_ = 0;
};

// Stands in for BitWriter where no gradient is wanted.
struct NoBits {
  void push(uint32_t, int) {}
  void flush() {}
};

}  // namespace torchslim::CPU_CAPABILITY
