// SPDX-License-Identifier: BSD-3-Clause
#include <torch/types.h>
#include <torchslim/quant/requantize.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cpp/catch.hpp"

namespace quant = torchslim::quant;

TEST_CASE("requantize: steps are whole on any grid", "[quant][requantize]") {
  const at::Tensor steps = torch::arange(-255, 256).to(torch::kFloat);
  for (const float scale : {1.0F / 4096, 0.1F, 0.3333333F, 7.7F}) {
    const at::Tensor s = torch::tensor(scale);
    CHECK(quant::steps_of(steps * s, s).equal(steps));
  }
}

TEST_CASE("requantize: sums go to the nearest step, half to even, channel by channel", "[quant][requantize]") {
  const at::Tensor sums = torch::tensor({1.0F, 3.0F, 5.0F, 6.0F}).view({1, 2, 2});
  const at::Tensor y = quant::requantize_sums(sums.clone(), torch::tensor({0.5F, 0.25F}), torch::tensor(1.0F), 1);
  CHECK(y.equal(torch::tensor({0.0F, 2.0F, 1.0F, 2.0F}).view({1, 2, 2})));
}

TEST_CASE("requantize: a sum of two grids is QNNPACK's fixed-point sum", "[quant][requantize]") {
  torch::manual_seed(1);
  for (const auto& [left, right, out] : {std::array<float, 3>{0.5F, 0.25F, 1.0F}, {0.1F, 0.03F, 0.07F}}) {
    const at::Tensor a = torch::randint(-255, 256, {500}), b = torch::randint(-255, 256, {500});
    const at::Tensor y =
        quant::requantized_add(a * left, torch::tensor(left), b * right, torch::tensor(right), torch::tensor(out)) /
        out;
    const int shift = 21 - std::ilogb(std::max(left / out, right / out));
    const auto multiplier = [&](float scale) { return std::lrint(std::ldexp(scale / out, shift)); };
    for (int i = 0; i < 500; ++i) {
      const int64_t sum = multiplier(left) * a[i].item<int64_t>() + multiplier(right) * b[i].item<int64_t>();
      const int64_t half = int64_t{1} << (shift - 1);
      const int64_t rounded = sum >= 0 ? (sum + half) >> shift : -((-sum + half) >> shift);
      REQUIRE(y[i].item<double>() == Approx(static_cast<double>(rounded)).margin(1e-4));
    }
  }
}

TEST_CASE("requantize: a product scales its steps once, and broadcasts", "[quant][requantize]") {
  const at::Tensor a = torch::tensor({1.0F, 2.0F, 3.0F, 5.0F}).view({1, 2, 2, 1}) * 0.5;
  const at::Tensor b = torch::tensor({1.0F, -1.0F}).view({1, 2, 1, 1}) * 0.25;
  const at::Tensor y = quant::requantized_mul(a, torch::tensor(0.5F), b, torch::tensor(0.25F), torch::tensor(0.25F));
  CHECK(y.flatten().equal(torch::tensor({0.0F, 1.0F, -2.0F, -2.0F}) * 0.25));  // 0.5, 1, -1.5, -2.5 steps
}
