// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/stat.h>
#include <torchslim/core/atomic_file.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace torchslim::core {
namespace {

constexpr size_t kLargestWrite = size_t{1} << 30;  // Linux writes at most 2 GiB at once

std::string cannot_write(const std::string& path) { return "torchslim: cannot write `" + path + "`"; }

/// Follows links, so that the file behind a link is replaced and not the link.
std::string resolved(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  return real ? std::string(real.get()) : path;
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

/// A name that no other thread, process or earlier crash uses; O_EXCL catches what is left.
std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> count{0};
  return path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
}

int open_new(const std::string& path) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

/// Makes the new name durable. Some file systems cannot sync a directory (EINVAL); there, nothing
/// more can be done.
int sync_directory(const std::string& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    return errno == EACCES ? 0 : errno;  // a directory may be writable and not readable
  }
  const int error_number = ::fsync(descriptor) != 0 && errno != EINVAL ? errno : 0;
  ::close(descriptor);
  return error_number;
}

}  // namespace

FileError::FileError(int error_number, const std::string& sentence)
    : std::system_error(error_number, std::generic_category(), sentence) {}

AtomicFile::AtomicFile(const std::string& path) : path_(resolved(path)) {
  struct stat old = {};
  const bool exists = ::stat(path_.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode)) {
    // rename() would replace a device such as /dev/null by a file.
    fail(S_ISDIR(old.st_mode) ? EISDIR : EINVAL);
  }
  const std::string temporary = temporary_name(path_);
  descriptor_ = open_new(temporary);
  if (descriptor_ < 0) {
    fail(errno);
  }
  temporary_ = temporary;
  if (exists && ::fchmod(descriptor_, old.st_mode & 07777) != 0) {
    const int error_number = errno;
    discard();
    fail(error_number);
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::write(const void* data, size_t size) {
  if (descriptor_ < 0) {
    fail(EBADF);
  }
  const char* rest = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, rest, size < kLargestWrite ? size : kLargestWrite);
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      fail(errno);
    }
    rest += written;
    size -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (descriptor_ < 0) {
    fail(EBADF);
  }
  if (::fsync(descriptor_) != 0) {
    fail(errno);
  }
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail(errno);
  }
  temporary_.clear();
  if (const int error_number = sync_directory(directory_of(path_)); error_number != 0) {
    throw FileError(error_number, "torchslim: wrote `" + path_ + "`, but cannot make sure of it on the disk");
  }
}

void AtomicFile::fail(int error_number) const { throw FileError(error_number, cannot_write(path_)); }

void AtomicFile::discard() noexcept {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    descriptor_ = -1;
  }
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
    temporary_.clear();
  }
}

void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace torchslim::core
