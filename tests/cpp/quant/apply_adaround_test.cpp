// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/apply_adaround.h>
#include <torchslim/quant/calibrate.h>

#include "cpp/catch.hpp"
#include "cpp/quant/small_net.h"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("apply_adaround: each number up or down, the output near the float one", "[quant][apply_adaround]") {
  auto net = small_net::prepared();
  const auto data = small_net::batches();
  calibrate(net, data);
  const torch::NoGradGuard no_grad;
  disable_fake_quant(*net);
  const auto expected = net->forward(at::cat(data));
  enable_fake_quant(*net);
  const auto weight = net->depthwise->conv->weight.clone();
  const auto scale = weight_scale(weight, WeightGridOptions().bits(4)).view({-1, 1, 1, 1});
  int64_t last = 0, total = 0;
  apply_adaround(net, data, AdaroundOptions().bits(4).iterations(200), int64_t{1} << 20,
                 [&](int64_t done, int64_t all) {
                   last = done;
                   total = all;
                 });
  CHECK((last == 800 && total == 800));
  const auto steps = net->depthwise->conv->weight / scale;
  CHECK(at::allclose(steps, steps.round(), 0, 1e-4));
  CHECK((steps - weight / scale).abs().max().item<float>() < 1.001f);
  const double ours = (net->forward(at::cat(data)) - expected).square().mean().item<double>();
  CHECK(ours < 0.05 * expected.var().item<double>());
}

TEST_CASE("apply_adaround: refuses an activation of its own", "[quant][apply_adaround]") {
  auto net = small_net::prepared();
  CHECK_THROWS_WITH(apply_adaround(net, small_net::batches(), AdaroundOptions().activation("relu")),
                    ContainsSubstring("torchslim::quant::apply_adaround: leave `activation` alone"));
}
