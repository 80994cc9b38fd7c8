// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/float_format.h>

#include <cmath>

#include "cpp/catch.hpp"

using torchslim::quant::FloatFormat;

TEST_CASE("FloatFormat: the limits of its numbers", "[quant][FloatFormat]") {
  CHECK(FloatFormat::fp16().max() == 65504);
  CHECK(FloatFormat::bf16().max() == std::ldexp(255.0, 120));
  CHECK(FloatFormat::e4m3fn().max() == 448);
  CHECK(FloatFormat::e5m2().max() == 57344);
  CHECK(FloatFormat::minifloat(3, 2).max() == 28);
  CHECK(FloatFormat::minifloat(2, 3).max() == 7.5);
  CHECK(FloatFormat::minifloat(2, 1).max() == 6);
  CHECK(FloatFormat::minifloat(0, 7).max() == 127.0 / 64);
  CHECK(FloatFormat::e4m3fn().smallest() == std::ldexp(1.0, -9));
}

TEST_CASE("FloatFormat: what is no format is refused", "[quant][FloatFormat]") {
  const auto largest = [](const FloatFormat& format) { return format.max(); };
  CHECK_THROWS_WITH(largest({4, 23, 7, "none"}), ContainsSubstring("torchslim::FloatFormat: mantissa_bits must be"));
  CHECK_THROWS_WITH(largest({8, 3, 100, "none"}), ContainsSubstring("must be a finite float32, got"));
  CHECK_THROWS_WITH(largest({4, 3, 7, "none", false}), ContainsSubstring("saturate must be true"));
  CHECK_THROWS_WITH(largest({4, 3, 7, "fnuz"}), ContainsSubstring("got `fnuz`"));
}
