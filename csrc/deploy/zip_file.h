// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace torchslim::deploy {

/// One record of a zip archive. LibTorch stores what the lite interpreter reads; it compresses program text for others.
struct ZipEntry {
  std::string_view name;
  std::string_view content;  // as it lies in the file
  uint32_t crc32 = 0;
  uint64_t header = 0;  // where the record begins
  bool stored = true;   // not compressed
};

/// Reads the directory of `archive` and compares every stored record with its checksum, which LibTorch's reader does not.
/// Allocates nothing that grows with what the file claims.
///   archive  the whole file; the entries point into it
///   path     for messages
/// Throws c10::ValueError if the file is cut short, changed, or no such archive: records that overlap, are there twice,
/// have two sizes or another name than the directory says, are compressed though the lite interpreter reads them.
TORCHSLIM_API std::vector<ZipEntry> read_zip(std::string_view archive, const std::string& path);

}  // namespace torchslim::deploy
