// SPDX-License-Identifier: BSD-3-Clause
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torchslim/quant/smooth.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("smooth_scale: the formula, written out", "[quant][smooth]") {
  const auto scale = smooth_scale(at::tensor({16.0f, 1.0f, 0.0f}), {at::tensor({1.0f, -4.0f, 2.0f}).view({1, 3})});
  CHECK(at::equal(scale, at::tensor({4.0f, 0.5f, 1.0f})));
  CHECK_THROWS_WITH(smooth_scale(at::ones({2}), {at::ones({1, 3})}),
                    ContainsSubstring("expected weights of shape (O, 2)"));
  CHECK_THROWS_AS(smooth_scale(at::ones({2}), {at::ones({1, 2})}, 2), c10::ValueError);
}

TEST_CASE("smooth: the network computes the same, with smaller activations", "[quant][smooth]") {
  torch::manual_seed(0);
  torch::nn::LayerNorm norm(torch::nn::LayerNormOptions({6}));
  torch::nn::Linear up(6, 12), down(12, 3);
  {
    const torch::NoGradGuard no_grad;
    norm->weight[2] = 50;
  }
  torch::nn::Sequential net(norm, up, torch::nn::ReLU(), down);
  const auto x = at::randn({4, 7, 6});
  const auto before = net->forward(x), input = norm->forward(x);
  const auto weight = up->weight.detach().clone();
  const std::vector<SmoothGroup> groups{{"0", {"1"}}, {"1", {"3"}}};
  const auto scales = smooth(net, {{x}}, groups);
  REQUIRE(scales.size() == 2);
  CHECK(at::allclose(net->forward(x), before, 1e-4, 1e-5));
  CHECK(at::allclose(scales[0], smooth_scale(input.abs().amax({0, 1}), {weight})));
  CHECK(norm->forward(x).abs().max().item<float>() < 0.5f * input.abs().max().item<float>());
}

TEST_CASE("smooth: refuses what it cannot scale", "[quant][smooth]") {
  torch::nn::Sequential net(torch::nn::Linear(2, 2), torch::nn::ReLU(), torch::nn::Linear(2, 2));
  const std::vector<at::Tensor> data{at::ones({1, 2})};
  CHECK_THROWS_WITH(smooth(net, data, {{"0", {"5"}}}),
                    ContainsSubstring("torchslim::quant::smooth: the module holds no `5`"));
  CHECK_THROWS_WITH(smooth(net, data, {{"1", {"2"}}}), ContainsSubstring("`1` must be a LayerNorm or linear layer"));
  CHECK_THROWS_WITH(smooth(net, data, {{"0", {"1"}}}), ContainsSubstring("`1`, behind `0`, must be a linear layer"));
  CHECK_THROWS_WITH(smooth(net, {{at::full({1, 2}, NAN)}}, {{"0", {"2"}}}), ContainsSubstring("batch 0 holds NaN"));
}
