// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace files {

/// A path in a directory of this test program's own.
inline std::string temporary(const std::string& name) {
  const auto directory = std::filesystem::temp_directory_path() / ("torchslim_deploy_test_" + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  return (directory / name).string();
}

inline std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

}  // namespace files
