// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/zip_file.h"

#include <c10/util/Exception.h>

#include "core/crc32.h"

namespace torchslim::deploy {
namespace {

constexpr size_t kEndSize = 22;
constexpr size_t kDirectoryEntrySize = 46;
constexpr size_t kLocalHeaderSize = 30;
constexpr uint64_t kIn64Bits = 0xFFFFFFFF;  // the field of 32 bits says: look in the extra field

// Reads little-endian fields; a position outside the archive is an error, never a wild read.
class ZipReader {
 public:
  ZipReader(std::string_view archive, const std::string& path) : archive_(archive), path_(path) {}

  std::string_view bytes(uint64_t offset, uint64_t size) const {
    require(offset <= archive_.size() && size <= archive_.size() - offset, "it is cut short");
    return archive_.substr(offset, size);
  }

  uint64_t number(uint64_t offset, int size) const {
    const std::string_view field = bytes(offset, size);
    uint64_t value = 0;
    for (int i = size - 1; i >= 0; --i) {
      value = value << 8 | static_cast<uint8_t>(field[i]);
    }
    return value;
  }

  void require(bool condition, const std::string& reason) const {
    TORCH_CHECK_VALUE(condition, "torchslim: ", path_, " is not a whole PyTorch Mobile file: ", reason);
  }

 private:
  std::string_view archive_;
  const std::string& path_;
};

// Where the 64-bit values of a directory entry's extra field begin, or 0 if it has none.
uint64_t find_zip64(const ZipReader& reader, uint64_t begin, uint64_t size) {
  for (uint64_t at = begin; at + 4 <= begin + size; at += 4 + reader.number(at + 2, 2)) {
    if (reader.number(at, 2) == 1) {
      return at + 4;
    }
  }
  return 0;
}

}  // namespace

std::vector<ZipEntry> read_zip(std::string_view archive, const std::string& path) {
  const ZipReader reader(archive, path);
  reader.require(archive.size() >= kEndSize, "it is cut short");
  const uint64_t end = archive.rfind("PK\5\6");
  reader.require(end != std::string_view::npos, "it has no zip directory (cut short?)");
  reader.require(end + kEndSize + reader.number(end + 20, 2) == archive.size(), "it is cut short");
  const uint64_t count = reader.number(end + 10, 2);
  uint64_t at = reader.number(end + 16, 4);
  std::vector<ZipEntry> entries;
  for (uint64_t i = 0; i < count; ++i) {
    reader.require(reader.bytes(at, 4) == "PK\1\2", "its zip directory is broken");
    const bool stored = reader.number(at + 10, 2) == 0;
    const uint64_t name_size = reader.number(at + 28, 2);
    const uint64_t extra_size = reader.number(at + 30, 2);
    uint64_t size = reader.number(at + 20, 4);  // as it lies in the file
    uint64_t offset = reader.number(at + 42, 4);
    uint64_t zip64 = find_zip64(reader, at + kDirectoryEntrySize + name_size, extra_size);
    for (const auto& [field, position] : {std::pair<uint64_t*, int>{nullptr, 24}, {&size, 20}, {&offset, 42}}) {
      if (zip64 != 0 && reader.number(at + position, 4) == kIn64Bits) {
        if (field != nullptr) {
          *field = reader.number(zip64, 8);
        }
        zip64 += 8;
      }
    }
    const uint64_t content = offset + kLocalHeaderSize + reader.number(offset + 26, 2) + reader.number(offset + 28, 2);
    ZipEntry entry{std::string(reader.bytes(at + kDirectoryEntrySize, name_size)), reader.bytes(content, size),
                   static_cast<uint32_t>(reader.number(at + 16, 4))};
    const uint32_t found = core::crc32(entry.content.data(), entry.content.size());
    reader.require(!stored || found == entry.crc32, "record " + entry.name + " was changed");
    entries.push_back(std::move(entry));
    at += kDirectoryEntrySize + name_size + extra_size + reader.number(at + 32, 2);
  }
  return entries;
}

}  // namespace torchslim::deploy
