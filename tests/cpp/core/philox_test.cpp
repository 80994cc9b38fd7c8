// SPDX-License-Identifier: BSD-3-Clause
#include "core/philox.h"

#include "cpp/catch.hpp"

namespace core = torchslim::core;

TEST_CASE("philox: the published answer for counter 0 and key 0", "[core][philox]") {
  uint32_t words[4][8];
  core::philox_words(0, 0, words);
  CHECK(words[0][0] == 0x6627e8d5);
  CHECK(words[1][0] == 0xe169c58d);
  CHECK(words[2][0] == 0xbc57ac4c);
  CHECK(words[3][0] == 0x9b00dbd8);
}

TEST_CASE("philox: numbers are in [0, 1), and their mean and variance those of a uniform", "[core][philox]") {
  constexpr int kGroups = 1 << 13;
  double sum = 0;
  double squares = 0;
  for (int group = 0; group < kGroups; ++group) {
    float numbers[core::kPhiloxGroup];
    core::philox_uniform(42, group, numbers);
    for (const float number : numbers) {
      REQUIRE(number >= 0.0f);
      REQUIRE(number < 1.0f);
      sum += number;
      squares += number * number;
    }
  }
  const double count = kGroups * core::kPhiloxGroup;
  CHECK(sum / count == Approx(0.5).margin(4 / std::sqrt(12 * count)));  // four standard deviations
  CHECK(squares / count == Approx(1.0 / 3).margin(4 * 0.2981 / std::sqrt(count)));
}

TEST_CASE("philox: a far group and a seed of 64 bits change every word", "[core][philox]") {
  const auto words_of = [](uint64_t seed, uint64_t group) {
    uint32_t words[4][8];
    core::philox_words(seed, group, words);
    return std::vector<uint32_t>(&words[0][0], &words[0][0] + 32);
  };
  const auto base = words_of(1, 1);
  CHECK(base != words_of(1, 1 + (uint64_t{1} << 32)));
  CHECK(base != words_of(1 + (uint64_t{1} << 32), 1));
  CHECK(base == words_of(1, 1));
}
