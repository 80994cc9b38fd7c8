// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/adaround.h>
#include <torchslim/quant/layer_samples.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("LayerSamples: rows of a convolution with their targets", "[quant][adaround]") {
  LayerSamples samples({1, 1, 1, 2});
  samples.add(at::tensor({1.0f, 2.0f, 3.0f}).view({1, 1, 1, 3}), at::tensor({4.0f, 5.0f}).view({1, 1, 1, 2}));
  CHECK(at::equal(samples.inputs(), at::tensor({1.0f, 2.0f, 2.0f, 3.0f}).view({1, 2, 2})));
  CHECK(at::equal(samples.targets(), at::tensor({4.0f, 5.0f}).view({1, 2, 1})));
}

TEST_CASE("LayerSamples: keeps no more than it may", "[quant][adaround]") {
  LayerSamples samples({1, 1}, {}, 80);
  const auto x = at::arange(100).to(at::kFloat).view({100, 1});
  samples.add(x, -x);
  CHECK(samples.rows() == 100);
  CHECK(samples.inputs().size(1) == 10);
  CHECK(at::equal(samples.inputs(), -samples.targets()));
  CHECK_THROWS_WITH(samples.add(x, x.slice(0, 1)), ContainsSubstring("got a target of shape [99, 1]"));
}

TEST_CASE("adaround: a layer that sees only sums keeps them", "[quant][adaround]") {
  const auto weight = at::tensor({3.0f, 1.45f, 1.2f, 1.2f}).view({1, 4});
  LayerSamples samples(weight.sizes());
  samples.add(at::ones({1, 4}), at::full({1, 1}, 6.85f));
  const GridWeight grid = adaround(weight, {}, samples, AdaroundOptions().bits(3).iterations(500));
  CHECK(grid.codes.sum().item<int64_t>() == 7);  // nearest: 6
}

TEST_CASE("adaround: less error at the output than nearest, behind the activation too", "[quant][adaround]") {
  at::manual_seed(0);
  const auto x = at::randn({500, 20}).matmul(at::randn({20, 20}) * at::logspace(0, -2, 20).unsqueeze(1));
  const auto weight = at::randn({8, 20}), bias = at::randn({8});
  LayerSamples samples(weight.sizes());
  samples.add(x, at::linear(x, weight, bias));
  for (const std::string activation : {"none", "relu"}) {
    const auto answer = [&](const at::Tensor& w) {
      const auto y = at::linear(x, w, bias);
      return activation == "relu" ? y.relu() : y;
    };
    const auto error = [&](const GridWeight& grid) {
      return (answer(grid.weight) - answer(weight)).square().mean().item<double>();
    };
    std::vector<int64_t> heard;
    const auto options = AdaroundOptions().bits(3).iterations(1000).activation(activation);
    const auto grid =
        adaround(weight, bias, samples, options, {}, [&](int64_t done, int64_t) { heard.push_back(done); });
    CHECK(error(grid) < 0.5 * error(round_weight(weight, WeightGridOptions().bits(3))));
    CHECK(heard.back() == 1000);
  }
}

TEST_CASE("adaround: refuses what does not fit", "[quant][adaround]") {
  LayerSamples samples({4, 3});
  CHECK_THROWS_WITH(adaround(at::ones({4, 3}), {}, samples), ContainsSubstring("nothing was added"));
  samples.add(at::ones({2, 3}), at::ones({2, 4}));
  CHECK_THROWS_WITH(adaround(at::ones({4, 2}), {}, samples),
                    ContainsSubstring("torchslim::adaround: the samples are of a weight [4, 3], got a weight [4, 2]"));
  CHECK_THROWS_AS(adaround(at::ones({4, 3}), at::ones({3}), samples), c10::ValueError);
}
