// SPDX-License-Identifier: BSD-3-Clause
#include <torch/nn/modules/batchnorm.h>
#include <torchslim/quant/calibrate.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/reestimate_batch_norm.h>

#include "cpp/catch.hpp"
#include "cpp/quant/small_net.h"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("reestimate_batch_norm: the mean of the statistics on rounded weights", "[quant][reestimate_batch_norm]") {
  auto net = small_net::prepared();
  const auto data = small_net::batches();
  calibrate(net, data);
  net->train();
  const auto parameters = net->parameters();
  const auto grid = net->depthwise->output_fake_quantize()->scale.clone();
  reestimate_batch_norm(net, data);
  CHECK(net->is_training());
  net->eval();
  auto mean = at::zeros({6}, at::kDouble), var = at::zeros({6}, at::kDouble);
  for (const auto& batch : data) {
    const auto x =
        at::conv2d(net->input(batch).value, std::get<0>(fake_quantize_weight(net->first->conv->weight)), {}, 1, 1);
    mean += x.mean({0, 2, 3}).to(at::kDouble) / 4;
    var += x.var({0, 2, 3}).to(at::kDouble) / 4;
  }
  CHECK(at::allclose(net->first->bn->running_mean.to(at::kDouble), mean, 1e-5, 1e-6));
  CHECK(at::allclose(net->first->bn->running_var.to(at::kDouble), var, 1e-5, 1e-6));
  CHECK(net->first->bn->options.momentum() == 0.1);
  CHECK(at::equal(grid, net->depthwise->output_fake_quantize()->scale));
}

TEST_CASE("reestimate_batch_norm: a float network too", "[quant][reestimate_batch_norm]") {
  torch::nn::BatchNorm1d norm(1);
  reestimate_batch_norm(norm, {{at::tensor({1.0f, 3.0f}).view({2, 1}), at::tensor({5.0f, 7.0f}).view({2, 1})}});
  CHECK(norm->running_mean.item<float>() == 4);
  CHECK(norm->running_var.item<float>() == 2);
}

TEST_CASE("reestimate_batch_norm: after an error the module is as it was", "[quant][reestimate_batch_norm]") {
  auto net = small_net::prepared();
  const auto before = small_net::state(*net);
  auto broken = small_net::batches(2);
  broken[1][0][0][0][0] = INFINITY;
  CHECK_THROWS_WITH(reestimate_batch_norm(net, broken),
                    ContainsSubstring("torchslim::quant::reestimate_batch_norm: batch 1 holds NaN or infinity"));
  CHECK(small_net::same(before, small_net::state(*net)));
  CHECK(net->first->bn->options.momentum() == 0.1);
  torch::nn::BatchNorm1d stateless(torch::nn::BatchNorm1dOptions(1).track_running_stats(false));
  CHECK_THROWS_WITH(reestimate_batch_norm(stateless, {{at::ones({2, 1})}}),
                    ContainsSubstring("no batch norm with running statistics"));
}
