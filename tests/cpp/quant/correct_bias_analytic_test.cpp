// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/correct_bias_analytic.h>
#include <torchslim/quant/fake_quantize_weight.h>

#include <limits>

#include "cpp/catch.hpp"
#include "cpp/quant/small_net.h"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("clipped_normal: known values", "[quant][correct_bias_analytic]") {
  const auto zero = at::zeros({1}, at::kDouble), one = at::ones({1}, at::kDouble);
  const auto half = clipped_normal(zero, one, 0, std::numeric_limits<double>::infinity());
  CHECK(half.mean.item<double>() == Approx(0.3989422804014327));
  CHECK(half.var.item<double>() == Approx(0.5 - 0.3989422804014327 * 0.3989422804014327));
  CHECK(clipped_normal(one * 9, one, 0, 6).mean.item<double>() == Approx(5.9996174));
  CHECK(clipped_normal(one, zero, 0, 6).var.item<double>() == 0);
  CHECK_THROWS_AS(clipped_normal(one, one, 1, 1), c10::ValueError);
}

TEST_CASE("correct_bias_analytic: takes back the shift of the mean", "[quant][correct_bias_analytic]") {
  auto net = small_net::prepared();
  const auto images = small_net::batches(1)[0];
  net->forward(images);
  const auto& norm = net->first->bn;
  const auto mean = clipped_normal(norm->bias, norm->weight.abs(), 0, std::numeric_limits<double>::infinity()).mean;
  const auto& weight = net->depthwise->conv->weight;
  const auto error = (std::get<0>(fake_quantize_weight(weight)) - weight).to(at::kDouble).flatten(1).sum(1);
  const auto& behind = net->depthwise->bn;
  const auto factor = (behind->weight / at::sqrt(behind->running_var + behind->options.eps())).to(at::kDouble);
  const auto expected = behind->bias.to(at::kDouble) - error * mean * factor;
  CHECK(correct_bias_analytic(net, images) == std::vector<std::string>{"first.conv", "classifier"});
  CHECK(at::allclose(behind->bias.to(at::kDouble), expected, 1e-5, 1e-7));
  small_net::Net plain;
  CHECK_THROWS_WITH(correct_bias_analytic(plain, images), ContainsSubstring("no weight of the network is rounded"));
}
