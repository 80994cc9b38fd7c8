// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace torchslim::deploy {

/// CRC-32 as zip and PNG compute it, over the bytes added so far.
class Crc32 {
 public:
  void add(const void* data, size_t size) {
    static const std::array<uint32_t, 256> table = make_table();
    const auto* bytes = static_cast<const uint8_t*>(data);
    for (size_t i = 0; i < size; ++i) {
      state_ = table[(state_ ^ bytes[i]) & 0xFF] ^ (state_ >> 8);
    }
  }

  uint32_t value() const { return ~state_; }

 private:
  static std::array<uint32_t, 256> make_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t entry = i;
      for (int bit = 0; bit < 8; ++bit) {
        entry = (entry >> 1) ^ ((entry & 1) != 0 ? 0xEDB88320U : 0U);
      }
      table[i] = entry;
    }
    return table;
  }

  uint32_t state_ = ~0U;
};

}  // namespace torchslim::deploy
