// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

namespace torchslim::core {

/// Thrown where the system refuses a file operation; `what()` is one sentence with the path and the
/// system's reason. Python sees OSError.
class TORCHSLIM_API FileError : public std::system_error {
 public:
  /// `error_number` is an errno value; `sentence` names the file and what was tried.
  FileError(int error_number, const std::string& sentence);
};

/// A file that appears whole or not at all: bytes go to a temporary beside `path`, and `commit`
/// puts it in place. Until then, and after any failure, an older file at `path` keeps its bytes; a
/// temporary that was not committed is removed when the object dies. Survives a crash or power loss
/// at any moment: the file's bytes are on the disk before the name is, and `commit` returns when
/// the name is too. An existing file's permissions are kept and links followed.
class TORCHSLIM_API AtomicFile {
 public:
  /// Opens the temporary. Throws FileError if the directory does not exist or refuses, or if `path`
  /// is no regular file.
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends `size` bytes. Throws FileError (disk full, file too large, ...).
  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Puts the file in place; nothing can be written after it. Throws FileError.
  void commit();

 private:
  [[noreturn]] void fail(int error_number) const;
  void discard() noexcept;

  std::string path_;       // where the file will be, links resolved
  std::string temporary_;  // empty once renamed or removed
  int descriptor_ = -1;
};

/// Writes `content` to `path` whole or not at all; see AtomicFile.
TORCHSLIM_API void write_file(const std::string& path, std::string_view content);

}  // namespace torchslim::core
