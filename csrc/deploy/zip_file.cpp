// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/zip_file.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <set>
#include <utility>

#include "core/crc32.h"

namespace torchslim::deploy {
namespace {

constexpr size_t kEndSize = 22;
constexpr size_t kDirectoryEntrySize = 46;
constexpr size_t kLocalHeaderSize = 30;
constexpr uint64_t kDeflated = 8;
constexpr uint64_t kMostDeflated = 1032;    // bytes that one of deflate's can stand for
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

// Reads the entry of the directory at `at` and moves on behind it.
ZipEntry read_entry(const ZipReader& reader, uint64_t& at) {
  reader.require(reader.bytes(at, 4) == "PK\1\2", "its zip directory is broken");
  const uint64_t name_size = reader.number(at + 28, 2), extra_size = reader.number(at + 30, 2);
  uint64_t whole = reader.number(at + 24, 4), size = reader.number(at + 20, 4);  // the second as it lies in the file
  uint64_t header = reader.number(at + 42, 4);
  uint64_t zip64 = find_zip64(reader, at + kDirectoryEntrySize + name_size, extra_size);
  for (const auto& [field, position] : {std::pair<uint64_t*, int>{&whole, 24}, {&size, 20}, {&header, 42}}) {
    if (zip64 != 0 && reader.number(at + position, 4) == kIn64Bits) {
      *field = reader.number(zip64, 8);
      zip64 += 8;
    }
  }
  ZipEntry entry;
  entry.name = reader.bytes(at + kDirectoryEntrySize, name_size);
  entry.crc32 = static_cast<uint32_t>(reader.number(at + 16, 4));
  entry.header = header;
  entry.stored = reader.number(at + 10, 2) == 0;
  const std::string record = "record " + std::string(entry.name);
  reader.require(reader.bytes(header, 4) == "PK\3\4" && reader.number(header + 26, 2) == name_size &&
                     reader.bytes(header + kLocalHeaderSize, name_size) == entry.name,
                 record + " is not where the directory says");
  entry.content = reader.bytes(header + kLocalHeaderSize + name_size + reader.number(header + 28, 2), size);
  if (entry.stored) {
    reader.require(whole == size, record + " has two sizes");
    reader.require(core::crc32(entry.content.data(), size) == entry.crc32, record + " was changed");
  } else {
    // LibTorch compresses program text, which the lite interpreter does not read; nothing else may be.
    reader.require(reader.number(at + 10, 2) == kDeflated && entry.name.find("/code/") != std::string_view::npos,
                   record + " is compressed");
    reader.require(whole <= kMostDeflated * (size + 1), record + " would grow beyond what it can hold");
  }
  at += kDirectoryEntrySize + name_size + extra_size + reader.number(at + 32, 2);
  return entry;
}

}  // namespace

std::vector<ZipEntry> read_zip(std::string_view archive, const std::string& path) {
  const ZipReader reader(archive, path);
  reader.require(archive.size() >= kEndSize, "it is cut short");
  const uint64_t end = archive.rfind("PK\5\6");
  reader.require(end != std::string_view::npos, "it has no zip directory (cut short?)");
  reader.require(end + kEndSize + reader.number(end + 20, 2) == archive.size(), "it is cut short");
  const uint64_t count = reader.number(end + 10, 2);
  const uint64_t begin = reader.number(end + 16, 4);
  uint64_t at = begin;
  std::vector<ZipEntry> entries;
  std::set<std::string_view> names;
  std::vector<std::pair<uint64_t, uint64_t>> places;
  for (uint64_t i = 0; i < count; ++i) {
    const ZipEntry entry = read_entry(reader, at);
    reader.require(names.insert(entry.name).second, "record " + std::string(entry.name) + " is there twice");
    places.emplace_back(entry.header, entry.content.data() + entry.content.size() - archive.data());
    entries.push_back(entry);
  }
  const uint64_t size = reader.number(end + 12, 4);
  // The file may hold what its 64-bit form needs between the directory and its end.
  reader.require(at - begin == size && at <= end && (at == end || reader.bytes(at, 4) == "PK\6\6"),
                 "its zip directory is broken");
  std::sort(places.begin(), places.end());
  for (size_t i = 0; i + 1 < places.size(); ++i) {
    reader.require(places[i].second <= places[i + 1].first, "its records overlap");
  }
  reader.require(places.empty() || places.back().second <= begin, "its records overlap");
  return entries;
}

}  // namespace torchslim::deploy
