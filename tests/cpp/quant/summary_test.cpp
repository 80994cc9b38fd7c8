// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/summary.h>
#include <torchslim/quant/weight_grid.h>

#include <cmath>

#include "cpp/catch.hpp"

namespace quant = torchslim::quant;
using quant::grid_error;

namespace {

struct NetImpl : torch::nn::Module {
  quant::Input input;
  quant::ConvBnAct2d conv{torch::nn::Conv2dOptions(3, 4, 3).bias(false)};
  quant::Flatten flatten;
  quant::Linear classifier{4 * 8 * 8, 2};
  NetImpl() {
    register_module("input", input);
    register_module("conv", conv);
    register_module("classifier", classifier);
  }
  at::Tensor forward(const at::Tensor& x) { return classifier(flatten(conv(input(x)))).value; }
};
TORCH_MODULE(Net);

}  // namespace

TEST_CASE("grid_error: what is cut off, and signal to noise", "[quant][summary]") {
  const at::Tensor x = at::tensor({0.4f, 3.0f, 0.5f, -2.0f}).view({2, 2});
  const at::Tensor y = at::tensor({0.0f, 1.0f, 0.0f, -2.0f}).view({2, 2});
  const auto error = grid_error(x, y, at::ones({2}));
  CHECK(error.saturated == 0.25);
  CHECK(std::fabs(error.sqnr - 10 * std::log10(13.41 / 4.41)) < 1e-6);
  CHECK(std::isinf(grid_error(x, x, {}).sqnr));
  CHECK_THROWS_WITH(grid_error(x, y[0], {}), ContainsSubstring("two tensors of one shape"));
  CHECK_THROWS_WITH(grid_error(x, y, at::ones({3})), ContainsSubstring("expected one scale, or 2, got 3"));
  CHECK_THROWS_WITH(grid_error(x.to(at::kDouble), y, {}), ContainsSubstring("expected float32"));
}

TEST_CASE("summary: a row for each weight and activation, and a table of them", "[quant][summary]") {
  torch::manual_seed(0);
  Net net;
  CHECK_THROWS_WITH(quant::summary(*net), ContainsSubstring("call quant::prepare first"));
  quant::prepare(*net, quant::PrepareOptions()
                           .layer("conv", quant::LayerOptions().weight_bits(4))
                           .layer("classifier", quant::LayerOptions().to_float(true)));
  net->forward(torch::randn({2, 3, 10, 10}));
  const auto rows = quant::summary(*net);
  REQUIRE(rows.size() == 3);
  CHECK((rows[0].layer == "conv.conv" && rows[0].tensor == "weight" && rows[0].bits == 4));
  const auto scale = quant::weight_scale(net->conv->conv->weight, quant::WeightGridOptions().bits(4));
  CHECK(rows[0].smallest_scale == scale.min().item<double>());
  CHECK(rows[0].largest_scale == scale.max().item<double>());
  CHECK((rows[0].saturated == 0.0 && *rows[0].sqnr > 10));
  CHECK((rows[2].tensor == "activation" && rows[2].smallest_scale && !rows[2].sqnr));
  const at::Tensor x = torch::randn({2, 3, 10, 10});
  const auto compared = quant::summary(net, x);
  CHECK(net->is_training());
  CHECK(compared[0].sqnr == rows[0].sqnr);
  net->eval();
  CHECK(compared[1].layer == "conv.conv");
  auto quantizer = net->conv->output_fake_quantize();
  quant::disable_fake_quant(*net);
  const at::Tensor in_float = net->conv(net->input(x)).value.detach();
  quant::enable_fake_quant(*net);
  const auto error = grid_error(in_float, quantizer->forward(in_float).detach(), quantizer->scale);
  CHECK((compared[1].sqnr == error.sqnr && compared[1].saturated == error.saturated && error.sqnr < 60));
  quant::disable_fake_quant(*net);
  CHECK_THROWS_WITH(quant::summary(net, x), ContainsSubstring("is disabled, so there is nothing to compare"));
  quant::enable_fake_quant(*net);
  CHECK(quant::float_layers(*net) == std::vector<std::string>{"classifier"});
  const std::string table = quant::to_string(rows);
  CHECK_THAT(table, ContainsSubstring("conv.conv") && ContainsSubstring("0.00 %") && ContainsSubstring("SQNR"));
}
