// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/gptq.h>
#include <torchslim/quant/hessian.h>
#include <torchslim/quant/layer_geometry.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("HessianAccumulator: the mean of 2·x·xᵀ", "[quant][hessian]") {
  HessianAccumulator hessian({3, 2});
  hessian.add(at::tensor({1.0f, 2.0f}).reshape({1, 2}));
  hessian.add(at::tensor({3.0f, 0.0f}).reshape({1, 1, 2}));
  CHECK(hessian.rows() == 2);
  CHECK(at::equal(hessian.hessian(), at::tensor({10.0, 2.0, 2.0, 4.0}, at::kDouble).reshape({1, 2, 2})));
}

TEST_CASE("HessianAccumulator: a convolution is unfolded per group", "[quant][hessian]") {
  const auto x = at::randn({2, 4, 5, 6});
  const auto geometry = LayerGeometry().stride({2}).padding({1}).groups(2);
  HessianAccumulator hessian({4, 2, 3, 3}, geometry);
  hessian.add(x);
  for (int64_t g = 0; g < 2; ++g) {
    HessianAccumulator one({2, 2, 3, 3}, LayerGeometry(geometry).groups(1));
    one.add(x.slice(1, 2 * g, 2 * g + 2));
    CHECK(at::allclose(hessian.hessian()[g], one.hessian()[0], 1e-5, 1e-6));
  }
}

TEST_CASE("HessianAccumulator: the drift from the float network's inputs", "[quant][hessian]") {
  HessianAccumulator hessian({3, 2});
  hessian.add(at::tensor({1.0f, 2.0f}).reshape({1, 2}), at::tensor({1.5f, 2.0f}).reshape({1, 2}));
  hessian.add(at::tensor({3.0f, 0.0f}).reshape({1, 2}), at::tensor({3.0f, 1.0f}).reshape({1, 2}));
  CHECK(at::equal(hessian.hessian(), at::tensor({10.0, 2.0, 2.0, 4.0}, at::kDouble).reshape({1, 2, 2})));
  CHECK(at::equal(hessian.drift(), at::tensor({0.5, 1.0, 3.0, 0.0}, at::kDouble).reshape({1, 2, 2})));
  CHECK_THROWS_WITH(hessian.add(at::ones({1, 2})),
                    ContainsSubstring("must have a float input or none, got one without"));
  CHECK_THROWS_WITH(hessian.add(at::ones({1, 2}), at::ones({2, 2})), ContainsSubstring("must have the input's shape"));
  CHECK(hessian.rows() == 2);
  HessianAccumulator without({3, 2});
  without.add(at::ones({1, 2}));
  CHECK_THROWS_WITH(without.drift(), ContainsSubstring("no float input was added"));
}

TEST_CASE("HessianAccumulator: refuses what does not fit", "[quant][hessian]") {
  HessianAccumulator hessian({4, 3});
  CHECK_THROWS_WITH(hessian.hessian(), ContainsSubstring("torchslim::HessianAccumulator: no input was added"));
  CHECK_THROWS_WITH(hessian.add(at::ones({2, 4})), ContainsSubstring("takes inputs (..., I), got shape [2, 4]"));
  CHECK_THROWS_WITH(hessian.add(at::full({1, 3}, NAN)), ContainsSubstring("the input holds NaN or infinity"));
  CHECK_THROWS_AS(HessianAccumulator({4, 3}, LayerGeometry().groups(2)), c10::ValueError);
}

TEST_CASE("gptq: a layer that sees only sums keeps them", "[quant][gptq]") {
  const auto weight = at::tensor({3.0f, 1.4f, 1.4f, 1.4f}).reshape({1, 4});
  const GridWeight grid = gptq(weight, at::ones({4, 4}), GptqOptions().bits(3).damping(1e-4));
  CHECK(at::equal(grid.codes, at::tensor({3, 1, 2, 1}, at::kChar).reshape({1, 4})));  // 7 for 7.2; nearest would be 6
}

TEST_CASE("gptq: less error at the output than nearest", "[quant][gptq]") {
  at::manual_seed(0);
  const auto x = at::randn({500, 20}).matmul(at::randn({20, 20}) * at::logspace(0, -2, 20).unsqueeze(1));
  const auto weight = at::randn({8, 20});
  HessianAccumulator hessian(weight.sizes());
  hessian.add(x);
  const auto error = [&](const at::Tensor& rounded) {
    return (weight - rounded).matmul(x.t()).square().mean().item<double>();
  };
  const double nearest = error(round_weight(weight, WeightGridOptions().bits(3)).weight);
  for (const bool act_order : {false, true}) {
    const auto options = GptqOptions().bits(3).act_order(act_order);
    CHECK(error(gptq(weight, hessian.hessian(), options).weight) < 0.6 * nearest);
  }
}

TEST_CASE("gptq: with a drift, the answer is that to the float inputs", "[quant][gptq]") {
  at::manual_seed(0);
  const auto x = at::randn({500, 20}).matmul(at::randn({20, 20}) * at::logspace(0, -2, 20).unsqueeze(1));
  const auto moved = x + 0.1 * x.roll(1, 1);  // what rounding before it makes of it, with a part that can be made good
  const auto weight = at::randn({8, 20});
  HessianAccumulator hessian(weight.sizes());
  hessian.add(moved, x);
  const auto options = GptqOptions().bits(4);
  const auto error = [&](const GridWeight& grid) {
    return (weight.matmul(x.t()) - grid.weight.matmul(moved.t())).square().mean().item<double>();
  };
  const double ours = error(gptq(weight, hessian.hessian(), options, hessian.drift()));
  CHECK(ours < 0.5 * error(gptq(weight, hessian.hessian(), options)));
  CHECK_THROWS_WITH(gptq(weight, hessian.hessian(), options, at::eye(4)),
                    ContainsSubstring("needs a drift of shape (groups, 20, 20)"));
}

TEST_CASE("gptq: a singular Hessian is damped, one that is not positive refused", "[quant][gptq]") {
  const auto weight = at::randn({3, 5});
  const auto options = GptqOptions().damping(0);
  CHECK(at::equal(gptq(weight, at::zeros({5, 5}), options).codes,
                  round_weight(weight, WeightGridOptions().bits(4)).codes));
  CHECK(gptq(weight, at::ones({5, 5}), options).weight.isfinite().all().item<bool>());
  CHECK_THROWS_WITH(gptq(weight, -at::eye(5), options),
                    ContainsSubstring("torchslim::gptq: the hessian of group 0 is not positive semidefinite"));
  CHECK_THROWS_WITH(gptq(weight, at::eye(4)), ContainsSubstring("needs a hessian of shape (groups, 5, 5)"));
}
