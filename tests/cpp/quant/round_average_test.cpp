// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/round_average.h>

#include <cmath>

#include "cpp/catch.hpp"

using torchslim::quant::round_average;

TEST_CASE("round_average: rounds like integers at every sum, ties to even", "[quant][average]") {
  torch::manual_seed(1);
  for (const int64_t count : {1, 4, 6, 9, 16, 49, 196}) {
    for (const float scale : {0.25f, 0.0137f, 3.3e-3f}) {
      const at::Tensor sums = at::arange(-128 * count, 127 * count + 1, at::kFloat);
      const at::Tensor noise = (at::rand({sums.numel()}) - 0.5) * 2e-3;  // of a float average, in units of the sum
      const at::Tensor averages = (sums + noise) * (scale / static_cast<float>(count));
      const at::Tensor rounded = round_average(averages, at::tensor(scale), count);
      const float multiplier = scale / (scale * static_cast<float>(count));
      for (int64_t i = 0; i < sums.numel(); i += 7) {
        const float code = std::nearbyint(sums[i].item<float>() * multiplier);
        REQUIRE(rounded[i].item<float>() == code * scale);
      }
    }
  }
}

TEST_CASE("round_average: the gradient is the identity", "[quant][average]") {
  const at::Tensor average = at::tensor({0.1f, 0.26f}).requires_grad_();
  round_average(average, at::tensor(0.1f), 4).backward(at::tensor({2.0f, 3.0f}));
  CHECK(at::equal(average.grad(), at::tensor({2.0f, 3.0f})));
}

TEST_CASE("round_average: keeps the type and refuses what it cannot round", "[quant][average]") {
  CHECK(round_average(at::ones({2}, at::kBFloat16), at::tensor(0.5f), 4).scalar_type() == at::kBFloat16);
  CHECK_THROWS_WITH(round_average(at::ones({2}), at::tensor(0.5f), 0), ContainsSubstring("count must be > 0, got 0"));
  CHECK_THROWS_WITH(round_average(at::ones({2}), at::ones({2}), 4), ContainsSubstring("one number, got shape [2]"));
  CHECK_THROWS_WITH(round_average(at::ones({2}, at::kInt), at::tensor(0.5f), 4), ContainsSubstring("got Int"));
}
