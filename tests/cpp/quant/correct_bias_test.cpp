// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/apply_gptq.h>
#include <torchslim/quant/calibrate.h>
#include <torchslim/quant/correct_bias.h>

#include "cpp/catch.hpp"
#include "cpp/quant/small_net.h"

using namespace torchslim::quant;  // NOLINT

namespace {

at::Tensor mean_output(small_net::Net& net, const std::vector<at::Tensor>& data, bool in_float = false) {
  const torch::NoGradGuard no_grad;
  if (in_float) {
    disable_fake_quant(*net);
  }
  const auto mean = net->forward(at::cat(data)).mean(0);
  enable_fake_quant(*net);
  return mean;
}

}  // namespace

TEST_CASE("correct_bias: the mean of the output is that of the float network", "[quant][correct_bias]") {
  auto net = small_net::prepared();
  const auto data = small_net::batches();
  calibrate(net, data);
  const auto expected = mean_output(net, data, /*in_float=*/true);
  const double before = (mean_output(net, data) - expected).abs().sum().item<double>();
  const auto weight = net->first->conv->weight.clone();
  net->train();
  std::vector<int64_t> heard;
  CHECK(correct_bias(net, data, [&](int64_t done, int64_t total) { heard.push_back(10 * done + total); }).empty());
  CHECK(heard == std::vector<int64_t>{14, 24, 34, 44});
  CHECK(net->is_training());
  net->eval();
  CHECK((mean_output(net, data) - expected).abs().sum().item<double>() < before);
  CHECK(at::equal(weight, net->first->conv->weight));
}

TEST_CASE("correct_bias: after rounding, the reference is the float network", "[quant][correct_bias]") {
  torch::manual_seed(0);
  const small_net::Net reference;
  torch::manual_seed(0);
  small_net::Net net;
  prepare(*net);
  net->eval();
  const auto data = small_net::batches();
  calibrate(net, data);
  const auto expected = mean_output(net, data, /*in_float=*/true);
  apply_gptq(net, data, GptqOptions().bits(3));
  CHECK_THROWS_WITH(correct_bias(net, data, {}, net.get()), ContainsSubstring("the reference shares `"));
  const torch::nn::Linear other(1, 1);
  CHECK_THROWS_WITH(correct_bias(net, data, {}, other.get()), ContainsSubstring("the reference has no `"));
  const auto error = [&] { return (mean_output(net, data) - expected).abs().sum().item<double>(); };
  const double before = error();
  CHECK(correct_bias(net, data, {}, reference.get()).empty());
  CHECK(error() < 0.2 * before);
}

TEST_CASE("correct_bias: after an error the module is as it was", "[quant][correct_bias]") {
  auto net = small_net::prepared();
  CHECK_THROWS_WITH(
      correct_bias(net, small_net::batches()),
      ContainsSubstring("torchslim::quant::correct_bias: layer `first` has seen no data; call quant::calibrate"));
  calibrate(net, small_net::batches());
  const auto before = small_net::state(*net);
  auto broken = small_net::batches(2);
  broken[1][0][0][0][0] = NAN;
  CHECK_THROWS_WITH(correct_bias(net, broken), ContainsSubstring("batch 1 holds NaN"));
  CHECK(small_net::same(before, small_net::state(*net)));
  small_net::Net plain;
  CHECK_THROWS_WITH(correct_bias(plain, broken), ContainsSubstring("is not prepared; call quant::prepare"));
  torch::nn::Linear other(1, 1);
  CHECK_THROWS_WITH(correct_bias(other, broken), ContainsSubstring("holds none of the layers"));
}
