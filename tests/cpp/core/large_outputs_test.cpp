// SPDX-License-Identifier: BSD-3-Clause
#include "core/large_outputs.h"

#include <cstdlib>
#include <memory>

#include "cpp/catch.hpp"

namespace {

/// `bytes` that begin at an odd place, so that no page border is met by chance.
bool holds_what_is_written(size_t bytes) {
  const std::unique_ptr<char, decltype(&std::free)> memory(static_cast<char*>(std::malloc(bytes + 1)), &std::free);
  char* data = memory.get() + 1;
  torchslim::core::advise_huge_pages(data, bytes);
  for (size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<char>(i % 251);
  }
  for (size_t i = 0; i < bytes; ++i) {
    if (data[i] != static_cast<char>(i % 251)) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("huge_pages: a buffer of any size can be advised and then holds what is written", "[core][huge_pages]") {
  const size_t bytes = GENERATE(size_t{0}, size_t{1}, size_t{1} << 20, (size_t{32} << 20) + 12345);
  CHECK(holds_what_is_written(bytes));
}
