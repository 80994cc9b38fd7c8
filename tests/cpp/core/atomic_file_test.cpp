// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <torchslim/core/atomic_file.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cpp/catch.hpp"

namespace fs = std::filesystem;
using torchslim::core::AtomicFile;
using torchslim::core::FileError;
using torchslim::core::write_file;

namespace {

enum class Fate { kFail, kDie };

// The system calls below stand before libc's in this program, so that the library's n-th call can
// be made to fail or the process to die at it.
int calls_left = -1;  // calls that still succeed; -1: all
Fate fate = Fate::kFail;

bool refused() {
  if (calls_left < 0) {
    return false;
  }
  if (calls_left > 0) {
    --calls_left;
    return false;
  }
  if (fate == Fate::kDie) {
    ::kill(::getpid(), SIGKILL);
  }
  calls_left = -1;  // only once: what cleans up afterwards works
  errno = ENOSPC;
  return true;
}

bool is_regular(int descriptor) {
  struct stat status = {};
  return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {
ssize_t write(int descriptor, const void* data, size_t size) {
  if (is_regular(descriptor) && refused()) {
    return -1;
  }
  return ::syscall(SYS_write, descriptor, data, size);
}

int fsync(int descriptor) { return refused() ? -1 : static_cast<int>(::syscall(SYS_fsync, descriptor)); }

int rename(const char* from, const char* to) noexcept {
  return refused() ? -1 : static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
}
#pragma GCC visibility pop

namespace {

/// An empty directory that is gone afterwards.
struct Directory {
  fs::path path = fs::temp_directory_path() / ("torchslim-atomic-" + std::to_string(::getpid()));
  Directory() { fs::create_directories(path); }
  ~Directory() {
    fs::permissions(path, fs::perms::owner_all);
    fs::remove_all(path);
  }
  std::string file(const std::string& name) const { return (path / name).string(); }
  int entries() const {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path)) {
      ++count;
    }
    return count;
  }
};

std::string content_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream content;
  content << stream.rdbuf();
  return content.str();
}

/// The sentence of the FileError that writing to `path` throws; empty if it throws none.
std::string refusal(const std::string& path) {
  try {
    write_file(path, "new");
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("atomic_file: a new file and a replaced one hold what was written", "[core][atomic_file]") {
  const Directory directory;
  write_file(directory.file("a"), "old");
  CHECK(content_of(directory.file("a")) == "old");
  AtomicFile file(directory.file("a"));
  file.write("ne");
  file.write("w");
  CHECK(content_of(directory.file("a")) == "old");
  file.commit();
  CHECK(content_of(directory.file("a")) == "new");
  CHECK(directory.entries() == 1);
  CHECK_THROWS_AS(file.write("x"), FileError);
  CHECK_THROWS_AS(file.commit(), FileError);
}

TEST_CASE("atomic_file: whichever call the disk refuses, the old or the new file is whole", "[core][atomic_file]") {
  const Directory directory;
  const std::string path = directory.file("a");
  // write, fsync, rename, fsync of the directory
  for (int succeeding = 0; succeeding < 4; ++succeeding) {
    write_file(path, "old");
    calls_left = succeeding;
    const std::string sentence = refusal(path);
    calls_left = -1;
    INFO("call " << succeeding);
    CHECK(content_of(path) == (succeeding < 3 ? "old" : "new"));
    CHECK_THAT(sentence, ContainsSubstring(path) && ContainsSubstring("No space left on device"));
    CHECK(directory.entries() == 1);
  }
}

TEST_CASE("atomic_file: killed at any call, the old or the new file is whole", "[core][atomic_file]") {
  const Directory directory;
  const std::string path = directory.file("a");
  for (int succeeding = 0; succeeding < 4; ++succeeding) {
    write_file(path, "old");
    const pid_t child = ::fork();
    if (child == 0) {
      fate = Fate::kDie;
      calls_left = succeeding;
      write_file(path, "new");
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    CHECK(content_of(path) == (succeeding < 3 ? "old" : "new"));
  }
}

TEST_CASE("atomic_file: a limit on the file's size leaves the old file and no temporary", "[core][atomic_file]") {
  const Directory directory;
  write_file(directory.file("a"), "old");
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit = {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 1000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  // The first write ends short, at the limit; the next one is refused.
  CHECK_THROWS_WITH(write_file(directory.file("a"), std::string(1500, 'x')), ContainsSubstring("File too large"));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  std::signal(SIGXFSZ, old_handler);
  CHECK(content_of(directory.file("a")) == "old");
  CHECK(directory.entries() == 1);
}

TEST_CASE("atomic_file: a writer that throws half-way leaves the old file and no temporary", "[core][atomic_file]") {
  const Directory directory;
  write_file(directory.file("a"), "old");
  const auto write_half = [&] {
    AtomicFile file(directory.file("a"));
    file.write("ne");
    throw std::runtime_error("half-way");
  };
  CHECK_THROWS_WITH(write_half(), "half-way");
  CHECK(content_of(directory.file("a")) == "old");
  CHECK(directory.entries() == 1);
}

TEST_CASE("atomic_file: what cannot be a file is refused by path and reason", "[core][atomic_file]") {
  const Directory directory;
  const std::string missing = directory.file("missing/a");
  CHECK_THAT(refusal(missing), ContainsSubstring("cannot write `" + missing) && ContainsSubstring("No such file"));
  CHECK_THAT(refusal(directory.path.string()), ContainsSubstring("Is a directory"));
  CHECK_THAT(refusal("/dev/null"), ContainsSubstring("Invalid argument"));
}

TEST_CASE("atomic_file: a directory that may not be written to is refused", "[core][atomic_file]") {
  const Directory directory;
  write_file(directory.file("a"), "old");
  fs::permissions(directory.path, fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_exec);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) {  // root may write anywhere, so become nobody
      ::_exit(2);
    }
    ::_exit(refusal(directory.file("a")).find("Permission denied") == std::string::npos ? 1 : 0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(content_of(directory.file("a")) == "old");
}

TEST_CASE("atomic_file: permissions are kept and links followed", "[core][atomic_file]") {
  const Directory directory;
  write_file(directory.file("a"), "old");
  fs::permissions(directory.file("a"), fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("a", directory.file("link"));
  write_file(directory.file("link"), "new");
  CHECK(fs::is_symlink(directory.file("link")));
  CHECK(content_of(directory.file("a")) == "new");
  CHECK(fs::status(directory.file("a")).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
}
