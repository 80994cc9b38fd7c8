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
  std::string name;
  std::string_view content;  // as it lies in the file
  uint32_t crc32 = 0;
};

/// Reads the directory of `archive` and compares every stored record with its checksum. LibTorch's reader does not.
///   archive  the whole file; the entries point into it
///   path     for messages
/// Throws c10::ValueError if the file is cut short, changed, or no such archive.
TORCHSLIM_API std::vector<ZipEntry> read_zip(std::string_view archive, const std::string& path);

}  // namespace torchslim::deploy
