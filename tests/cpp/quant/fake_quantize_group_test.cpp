// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_group.h>

#include "cpp/catch.hpp"

using torchslim::quant::fake_quantize;
using torchslim::quant::fake_quantize_group;

TEST_CASE("fake_quantize_group: each group as if it were alone", "[quant][group]") {
  const int64_t axis = GENERATE(0, 1, 2, -1);
  const auto x = (at::randn({4, 6, 8}) * 3).requires_grad_();
  const int64_t groups = x.size(axis) / 2;
  auto shape = x.sizes().vec();
  shape[axis < 0 ? axis + 3 : axis] = groups;
  const auto scale = at::rand(shape) + 0.05;
  const auto zero_point = at::randint(-4, 4, shape, at::kInt);
  const auto y = fake_quantize_group(x, scale, zero_point, -8, 7, 2, axis);
  const auto spread = [&](const at::Tensor& numbers) { return numbers.repeat_interleave(2, axis).flatten(); };
  const auto expected =
      fake_quantize(x.flatten(), spread(scale), spread(zero_point), -8, 7, 0).view(x.sizes());  // a grid per element
  CHECK(at::equal(y, expected));
  const auto grad = at::randn(x.sizes());
  CHECK(at::equal(torch::autograd::grad({y}, {x}, {grad})[0], torch::autograd::grad({expected}, {x}, {grad})[0]));
}

TEST_CASE("fake_quantize_group: dimensions of size 1 share a grid", "[quant][group]") {
  const auto x = at::randn({3, 8, 2, 2});
  const auto scale = at::rand({3, 2, 1, 1}) + 0.05;
  const auto zero_point = at::zeros({1, 1, 1, 1}, at::kInt);
  CHECK_THROWS_AS(fake_quantize_group(x, scale, zero_point, -8, 7, 4, 1), c10::ValueError);  // axis must not be shared
  const auto zeros = at::zeros({1, 2, 1, 1}, at::kInt);
  const auto full = scale.expand({3, 2, 2, 2}).contiguous();
  CHECK(at::equal(fake_quantize_group(x, scale, zeros, -8, 7, 4, 1),
                  fake_quantize_group(x, full, at::zeros({3, 2, 2, 2}, at::kInt), -8, 7, 4, 1)));
}

TEST_CASE("fake_quantize_group: what does not divide is refused with the numbers", "[quant][group]") {
  const auto x = at::randn({3, 8});
  CHECK_THROWS_WITH(fake_quantize_group(x, at::ones({3, 2}), at::zeros({3, 2}), -8, 7, 3),
                    Catch::Contains("group_size must be ≥ 1 and divide dimension 1, which has 8 elements, got 3"));
  CHECK_THROWS_WITH(fake_quantize_group(x, at::ones({3, 4}), at::zeros({3, 2}), -8, 7, 4),
                    Catch::Contains("scale must have shape [3, 2]"));
}

TEST_CASE("fake_quantize_group: numbers that are no grid are refused with their group", "[quant][group]") {
  const auto x = at::randn({8, 3});
  auto scale = at::ones({2, 3}), zero_point = at::zeros({2, 3});
  scale[1][2] = -1;
  CHECK_THROWS_WITH(fake_quantize_group(x, scale, zero_point, -8, 7, 4, 0),
                    Catch::StartsWith("torchslim::fake_quantize_group: scale must be > 0, got -1 in group [1, 2]"));
  scale[1][2] = 1;
  zero_point[0][1] = 9;
  CHECK_THROWS_WITH(fake_quantize_group(x, scale, zero_point, -8, 7, 4, 0),
                    Catch::StartsWith("torchslim::fake_quantize_group: zero_point must be in [quant_min, quant_max] = "
                                      "[-8, 7], got 9 in group [0, 1]"));
  CHECK_THROWS_WITH(fake_quantize_group(x, scale, zero_point, 7, -8, 4, 0),
                    Catch::StartsWith("torchslim::fake_quantize_group: the range is empty"));
}
