// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/levels.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("apot_levels: the table of the paper", "[quant][levels]") {
  CHECK(at::equal(apot_levels(2, false), at::tensor({0.0f, 0.25f, 0.5f, 1.0f})));
  CHECK(at::allclose(
      apot_levels(4, false) * 10,  // sums of {0, 8, 2, 1/2} and {0, 4, 1, 1/4} sixteenths
      at::tensor({0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.25, 3.0, 4.0, 4.5, 6.0, 8.0, 8.25, 9.0, 12.0}, at::kFloat)
          .mul(10.0 / 12)));
  CHECK(apot_levels(4).numel() == 15);
  CHECK(at::equal(apot_levels(5), -apot_levels(5).flip(0)));
  CHECK_THROWS_WITH(apot_levels(9), ContainsSubstring("torchslim::apot_levels: bits must be in [2, 8] with a sign"));
}

TEST_CASE("power_of_two_levels: 0 and powers of two", "[quant][levels]") {
  CHECK(at::equal(power_of_two_levels(3), at::tensor({-1.0f, -0.5f, -0.25f, 0.0f, 0.25f, 0.5f, 1.0f})));
  CHECK_THROWS_AS(power_of_two_levels(0, false), c10::ValueError);
}

TEST_CASE("kmeans_levels: each level is the mean of what is nearest to it", "[quant][levels]") {
  const auto x = at::tensor({9.0f, 0.0f, 1.0f, 10.0f, 2.0f, 11.0f}).reshape({2, 3});
  CHECK(at::equal(kmeans_levels(x, 2), at::tensor({1.0f, 10.0f})));
  CHECK(at::equal(kmeans_levels(x, 1), at::tensor({5.5f})));
  CHECK(at::equal(kmeans_levels(at::ones({4}), 3), at::ones({1})));
  CHECK_THROWS_WITH(kmeans_levels(x, 0), ContainsSubstring("torchslim::kmeans_levels: k must be in [1, 65536], got 0"));
}

TEST_CASE("power_of_two_scale: nearest in the logarithm", "[quant][levels]") {
  const auto scale = at::tensor({0.3f, 1.4f, 1.5f, 1024.0f});
  CHECK(at::equal(power_of_two_scale(scale), at::tensor({0.25f, 1.0f, 2.0f, 1024.0f})));
  CHECK_THROWS_WITH(power_of_two_scale(-scale), ContainsSubstring("scale must be > 0, got -0.3 at index 0"));
}

TEST_CASE("absmax_scale: the largest level meets the largest element", "[quant][levels]") {
  const auto x = at::tensor({1.0f, -3.0f, 0.0f, 0.0f}).reshape({2, 2});
  CHECK(absmax_scale(x, 1.5).item<float>() == 2.0f);
  CHECK(at::equal(absmax_scale(x, 1.5, 0), at::tensor({2.0f, 1.0f})));
  CHECK_THROWS_AS(absmax_scale(x, 0), c10::ValueError);
}
