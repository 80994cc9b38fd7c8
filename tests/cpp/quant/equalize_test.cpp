// SPDX-License-Identifier: BSD-3-Clause
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torchslim/models/mobilenet_v2.h>
#include <torchslim/quant/equalize.h>

#include <algorithm>

#include "cpp/catch.hpp"
#include "cpp/quant/small_net.h"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("equalize: one formula, written out", "[quant][equalize]") {
  torch::nn::Linear first(2, 2), second(2, 1);
  const torch::NoGradGuard no_grad;
  first->weight.copy_(at::tensor({8.0f, -2.0f, 0.5f, 0.25f}).view({2, 2}));
  first->bias.copy_(at::tensor({4.0f, 1.0f}));
  second->weight.copy_(at::tensor({2.0f, -8.0f}).view({1, 2}));
  torch::nn::Sequential net(first, torch::nn::ReLU(), second);
  const auto pairs = equalize(net, at::zeros({1, 2}));
  REQUIRE(pairs.size() == 2);
  CHECK((pairs[0].first == "0" && pairs[0].second == "2" && pairs[0].reason.empty()));
  CHECK(pairs[1].reason == "it is the network's result");
  CHECK(at::equal(pairs[0].scale, at::tensor({2.0f, 0.25f})));
  CHECK(at::equal(first->weight, at::tensor({4.0f, -1.0f, 2.0f, 1.0f}).view({2, 2})));
  CHECK(at::equal(first->bias, at::tensor({2.0f, 4.0f})));
  CHECK(at::equal(second->weight, at::tensor({4.0f, -2.0f}).view({1, 2})));
}

TEST_CASE("equalize: the network computes the same", "[quant][equalize]") {
  torch::manual_seed(0);
  small_net::Net net;
  net->eval();
  const auto x = small_net::batches(1)[0];
  const auto before = net->forward(x);
  const auto pairs = equalize(net, x);
  CHECK(at::allclose(net->forward(x), before, 1e-4, 1e-5));
  CHECK((pairs[0].first == "first.conv" && pairs[0].second == "depthwise.conv"));
  CHECK((pairs[1].first == "depthwise.conv" && pairs[1].reason == "more than one layer reads its result"));
  CHECK((pairs[2].first == "pointwise.conv" && pairs[2].reason == "a residual addition reads its result"));
}

TEST_CASE("equalize: a ReLU6 is refused or replaced", "[quant][equalize]") {
  torch::manual_seed(0);
  torchslim::models::MobileNetV2 net(torchslim::models::MobileNetV2Options().num_classes(10).width(0.25));
  const auto x = at::randn({1, 3, 32, 32});
  const auto refused_for_relu6 = [](const std::vector<EqualizedPair>& pairs) {
    return std::count_if(pairs.begin(), pairs.end(), [](const EqualizedPair& pair) {
      return pair.reason == "a ReLU6 follows, which factors would move; replace_relu6 makes it a ReLU";
    });
  };
  CHECK(refused_for_relu6(equalize(net, x)) > 10);
  const auto pairs = equalize(net, x, /*replace_relu6=*/true);
  CHECK(refused_for_relu6(pairs) == 0);
  const auto moved =
      std::count_if(pairs.begin(), pairs.end(), [](const EqualizedPair& p) { return p.scale.defined(); });
  CHECK(moved > 10);
  prepare(*net);
  CHECK_THROWS_WITH(equalize(net, x), ContainsSubstring("is quantised; equalise the float network"));
}
