// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fold.h>
#include <torchslim/quant/weight_grid.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("round_weight: codes times scale, half to even, symmetric", "[quant][weight_grid]") {
  const auto weight = at::tensor({7.0f, -3.5f, 2.5f, 0.0f, 0.0f, 0.0f}).reshape({2, 3});
  const GridWeight grid = round_weight(weight, WeightGridOptions().bits(4));
  CHECK(at::equal(grid.scale, at::tensor({1.0f, 1.0f})));
  CHECK(at::equal(grid.codes, at::tensor({7, -4, 2, 0, 0, 0}, at::kChar).reshape({2, 3})));
  CHECK(at::equal(grid.weight, grid.codes.to(at::kFloat)));
}

TEST_CASE("round_weight: eight bits are quantize_weight", "[quant][weight_grid]") {
  const auto weight = at::randn({5, 3, 3, 3});
  const GridWeight grid = round_weight(weight);
  const QuantizedWeight expected = quantize_weight(weight);
  CHECK(at::equal(grid.codes, expected.codes));
  CHECK(at::equal(grid.scale, expected.scale));
}

TEST_CASE("weight_scale: the mse search cuts a lonely outlier", "[quant][weight_grid]") {
  auto weight = at::linspace(-1, 1, 100).reshape({1, 100});
  weight[0][0] = 2;
  const auto options = WeightGridOptions().bits(3);
  const float all = weight_scale(weight, options).item<float>();
  const float less = weight_scale(weight, WeightGridOptions(options).scale_search("mse")).item<float>();
  CHECK(all == 2.0f / 3);
  CHECK(less < all);
}

TEST_CASE("weight_scale: refuses", "[quant][weight_grid]") {
  CHECK_THROWS_WITH(weight_scale(at::ones({2, 2}), WeightGridOptions().bits(9)),
                    ContainsSubstring("torchslim::weight_scale: bits must be in [2, 8], got 9"));
  CHECK_THROWS_WITH(weight_scale(at::full({2, 2}, NAN)), ContainsSubstring("NaN or infinity in channel 0"));
  CHECK_THROWS_AS(round_weight(at::ones({2, 2}), {}, at::ones({3})), c10::ValueError);
}
