// SPDX-License-Identifier: BSD-3-Clause
#include "core/crc32.h"

#include <string_view>

#include "cpp/catch.hpp"

TEST_CASE("crc32: the published check value, whole and in two parts", "[core][crc32]") {
  using torchslim::core::crc32;
  constexpr std::string_view kDigits = "123456789";
  CHECK(crc32(kDigits.data(), 9) == 0xCBF43926U);
  CHECK(crc32(kDigits.data(), 0) == 0U);
  for (size_t cut = 0; cut <= 9; ++cut) {
    CHECK(crc32(kDigits.data() + cut, 9 - cut, crc32(kDigits.data(), cut)) == 0xCBF43926U);
  }
}
