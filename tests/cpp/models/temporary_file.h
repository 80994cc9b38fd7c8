// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

/// The name of a file in the system's temporary directory; the file is gone afterwards.
struct TemporaryFile {
  std::string path =
      (std::filesystem::temp_directory_path() / ("torchslim-" + std::to_string(::getpid()) + ".safetensors")).string();
  ~TemporaryFile() { std::filesystem::remove(path); }

  std::string read() const {
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    return content.str();
  }
  void write(const std::string& content) const {
    std::filesystem::remove(path);  // ext4 flushes a file that is cut and written again to the disk: 5 ms each time
    std::ofstream(path, std::ios::binary) << content;
  }
};
