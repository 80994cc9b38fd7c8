// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace torchslim::core {

/// Asks for huge pages under a large buffer that was just allocated and not yet written: the C library takes more than
/// 32 MB fresh from the system each time, and its thousands of small page faults cost more than filling it.
/// Does nothing for smaller buffers, or where the system has no such pages; it never fails.
///   data   the buffer          bytes  its size
inline void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr size_t kFreshFrom = size_t{32} << 20;
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  if (bytes < kFreshFrom) {
    return;
  }
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

/// Returns whether an output of `bytes` is so large that a cache hardly keeps it until it is read. Writing it past the
/// cache (core/streaming_store.h) then saves reading each line before it is overwritten, a third of the memory traffic.
inline bool worth_streaming(size_t bytes) { return bytes >= size_t{8} << 20; }

}  // namespace torchslim::core
