// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/apply_gptq.h>
#include <torchslim/quant/calibrate.h>

#include "cpp/catch.hpp"
#include "cpp/quant/small_net.h"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("apply_gptq: weights on their grids, the output nearer than with nearest", "[quant][apply_gptq]") {
  auto net = small_net::prepared();
  const auto data = small_net::batches();
  calibrate(net, data);
  const torch::NoGradGuard no_grad;
  disable_fake_quant(*net);
  const auto expected = net->forward(at::cat(data));
  enable_fake_quant(*net);
  const auto scale = weight_scale(net->pointwise->conv->weight, WeightGridOptions().bits(4));
  std::vector<int64_t> heard;
  apply_gptq(net, data, GptqOptions().bits(4),
             [&](int64_t done, int64_t total) { heard.push_back(10 * done + total); });
  CHECK(heard == std::vector<int64_t>{14, 24, 34, 44});
  const auto steps = net->pointwise->conv->weight / scale.view({-1, 1, 1, 1});
  CHECK(at::allclose(steps, steps.round(), 0, 1e-4));
  CHECK(net->pointwise->weight_fake_quantize()->is_frozen());
  CHECK(at::equal(net->pointwise->weight_fake_quantize()->scale, scale));
  const double ours = (net->forward(at::cat(data)) - expected).square().mean().item<double>();
  CHECK(ours < 0.05 * expected.var().item<double>());
}

TEST_CASE("apply_gptq: each layer has the bits it was prepared with, unless told otherwise", "[quant][apply_gptq]") {
  small_net::Net net;
  prepare(*net, PrepareOptions().weight_bits(5).layer("first", LayerOptions().weight_bits(3)));
  const auto data = small_net::batches();
  calibrate(net, data);
  apply_gptq(net, data);
  const auto largest_code = [](const ConvBnAct2d& layer) {
    const auto scale = layer->weight_fake_quantize()->scale.view({-1, 1, 1, 1});
    return (layer->conv->weight / scale).abs().max().round().item<int64_t>();
  };
  CHECK(largest_code(net->first) == 3);
  CHECK(largest_code(net->pointwise) == 15);
}

TEST_CASE("apply_gptq: activations may have learned grids", "[quant][apply_gptq]") {
  small_net::Net net;
  prepare(*net, PrepareOptions().activation_quantizer("lsq"));
  const auto data = small_net::batches();
  CHECK_THROWS_WITH(apply_gptq(net, data), ContainsSubstring("layer `first` has seen no data"));
  net->forward(at::cat(data));  // in training mode: learned grids begin with the first batch
  apply_gptq(net, data, GptqOptions().bits(4));
  CHECK(net->first->learned_activation()->fake_quant_enabled.item<bool>());
  CHECK(net->pointwise->weight_fake_quantize()->is_frozen());
}

TEST_CASE("apply_gptq: after an error the module is as it was", "[quant][apply_gptq]") {
  auto net = small_net::prepared();
  CHECK_THROWS_WITH(apply_gptq(net, small_net::batches()),
                    ContainsSubstring("torchslim::quant::apply_gptq: layer `first` has seen no data"));
  calibrate(net, small_net::batches());
  const auto before = small_net::state(*net);
  auto broken = small_net::batches(2);
  broken[1][0][0][0][0] = NAN;
  CHECK_THROWS_WITH(apply_gptq(net, broken), ContainsSubstring("batch 1 holds NaN"));
  const auto stop = [](int64_t done, int64_t) { TORCH_CHECK_VALUE(done < 3, "enough"); };
  CHECK_THROWS_WITH(apply_gptq(net, small_net::batches(), {}, stop), ContainsSubstring("enough"));
  CHECK_THROWS_WITH(apply_gptq(net, small_net::batches(), GptqOptions().bits(9)), ContainsSubstring("bits"));
  CHECK(small_net::same(before, small_net::state(*net)));
  CHECK(net->first->weight_fake_quantize().is_empty());
}
