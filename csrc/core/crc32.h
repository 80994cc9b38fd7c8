// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstddef>
#include <cstdint>

namespace torchslim::core {

/// Returns the CRC-32 of `size` bytes as zlib counts it (reflected polynomial 0xEDB88320);
/// `crc32(b, n, crc32(a, m))` is that of `a` followed by `b`.
TORCHSLIM_API uint32_t crc32(const void* data, size_t size, uint32_t previous = 0);

}  // namespace torchslim::core
