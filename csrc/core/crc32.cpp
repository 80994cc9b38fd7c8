// SPDX-License-Identifier: BSD-3-Clause
#include "core/crc32.h"

#include <array>
#include <bit>
#include <cstring>

namespace torchslim::core {
namespace {

static_assert(std::endian::native == std::endian::little, "torchslim: files are written for little-endian machines");

using Crc32Tables = std::array<std::array<uint32_t, 256>, 8>;

/// Table t holds the remainder of each byte followed by t zero bytes, so that eight bytes are
/// divided at once.
constexpr Crc32Tables make_crc32_tables() {
  Crc32Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) {
      remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? 0xEDB88320U : 0U);
    }
    tables[0][byte] = remainder;
  }
  for (size_t t = 1; t < tables.size(); ++t) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t shorter = tables[t - 1][byte];
      tables[t][byte] = (shorter >> 8) ^ tables[0][shorter & 0xFF];
    }
  }
  return tables;
}

constexpr Crc32Tables kCrc32Tables = make_crc32_tables();

}  // namespace

uint32_t crc32(const void* data, size_t size, uint32_t previous) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint32_t crc = ~previous;
  for (; size >= 8; size -= 8, bytes += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, bytes, 8);
    eight ^= crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i) {
      crc ^= kCrc32Tables[7 - i][(eight >> (8 * i)) & 0xFF];
    }
  }
  for (; size > 0; --size, ++bytes) {
    crc = (crc >> 8) ^ kCrc32Tables[0][(crc ^ *bytes) & 0xFF];
  }
  return ~crc;
}

}  // namespace torchslim::core
