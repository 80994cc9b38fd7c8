// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/graph/capture.h>
#include <torchslim/graph/count.h>
#include <torchslim/graph/fold.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_weight.h>

#include "cpp/catch.hpp"

namespace graph = torchslim::graph;
namespace quant = torchslim::quant;
namespace nn = torch::nn;
using graph::OpKind;

namespace {

struct GridImpl : nn::Module {
  GridImpl() {
    scale = register_buffer("scale", torch::tensor(0.05f));
    zero_point = register_buffer("zero_point", torch::tensor(-3, torch::kInt));
  }
  at::Tensor forward(const at::Tensor& x) { return quant::fake_quantize(x, scale, zero_point, -128, 127); }

  at::Tensor scale;
  at::Tensor zero_point;
};
TORCH_MODULE(Grid);

at::Tensor weight_by_channel(const at::Tensor& weight) {
  const auto scale = weight.detach().abs().flatten(1).amax(1) / 127;
  return quant::fake_quantize(weight, scale, torch::zeros_like(scale, torch::kInt), -127, 127, 0);
}

at::Tensor weight_in_one_pass(const at::Tensor& weight) { return std::get<0>(quant::fake_quantize_weight(weight)); }

// Fake-quantised as a prepared model is: input, weights per channel, activations behind batch norm and ReLU.
struct QuantizedNetImpl : nn::Module {
  explicit QuantizedNetImpl(at::Tensor (*on_grid)(const at::Tensor&)) : on_grid_(on_grid) {
    input_fake_quantize = register_module("input_fake_quantize", Grid());
    conv = register_module("conv", nn::Conv2d(nn::Conv2dOptions(3, 6, 3).bias(false)));
    conv_grid = conv->register_module("output_fake_quantize", Grid());
    bn = register_module("bn", nn::BatchNorm2d(6));
    linear = register_module("linear", nn::Linear(6, 4));
  }

  at::Tensor forward(at::Tensor x) {
    x = input_fake_quantize(x);
    x = torch::relu(bn(torch::conv2d(x, on_grid_(conv->weight))));
    x = conv_grid(x);
    x = quant::fake_quantize(torch::adaptive_avg_pool2d(x, {1, 1}), 0.05, -3, -128, 127);
    return torch::addmm(linear->bias, x.flatten(1), on_grid_(linear->weight).t());
  }

  Grid input_fake_quantize{nullptr};
  nn::Conv2d conv{nullptr};
  Grid conv_grid{nullptr};
  nn::BatchNorm2d bn{nullptr};
  nn::Linear linear{nullptr};
  at::Tensor (*on_grid_)(const at::Tensor&);
};
TORCH_MODULE(QuantizedNet);

}  // namespace

TEST_CASE("capture: weights get grids, activations get nodes", "[graph][capture]") {
  torch::manual_seed(0);
  const auto how = GENERATE(&weight_by_channel, &weight_in_one_pass);
  QuantizedNet net(how);
  const auto x = torch::randn({2, 3, 8, 8});
  const auto captured = graph::capture(net, x);
  std::vector<std::string> rows;
  for (const auto& node : captured.nodes) {
    rows.push_back(std::string(to_string(node.kind)) + " " + node.layer);
  }
  CHECK(rows == std::vector<std::string>{"input ", "fake_quantize input_fake_quantize", "conv2d conv",
                                         "batch_norm2d bn", "relu ", "fake_quantize conv.output_fake_quantize",
                                         "global_avg_pool ", "fake_quantize ", "flatten ", "linear linear"});
  for (const size_t i : {2, 9}) {
    const auto& node = captured.nodes[i];
    REQUIRE(node.weight_grid.has_value());
    CHECK(node.weight_grid->axis == std::optional<int64_t>(0));
    CHECK(node.weight_grid->quant_min == -127);
    CHECK(node.weight_grid->scale.sizes() == at::IntArrayRef({node.weight.value.size(0)}));
    CHECK(node.weight.value.unsafeGetTensorImpl() ==
          net->named_parameters()[node.layer + ".weight"].unsafeGetTensorImpl());
  }
  for (const size_t i : {1, 5, 7}) {
    const auto& grid = *captured.nodes[i].grid;
    CHECK(grid.scale.dim() == 0);
    CHECK(grid.scale.item<float>() == 0.05f);
    CHECK(grid.zero_point.item<int>() == -3);
    CHECK(grid.zero_point.scalar_type() == torch::kInt);
  }
  net->eval();
  CHECK(torch::equal(graph::run_float(captured, x), net->forward(x)));
}

TEST_CASE("capture: relu and grid in one operation become two nodes", "[graph][capture]") {
  Grid grid;
  const auto forward = [&](at::Tensor x) {
    return quant::clamp_fake_quantize(x, grid->scale, grid->zero_point, -128, 127, 0.0, 6.0);
  };
  const auto x = torch::randn({2, 3, 4, 4});
  const auto captured = graph::capture(*grid, forward, x);
  REQUIRE(captured.nodes.size() == 3);
  CHECK(captured.nodes[1].kind == OpKind::kRelu6);
  CHECK(captured.nodes[2].kind == OpKind::kFakeQuantize);
  CHECK(torch::equal(graph::run_float(captured, x), forward(x)));
}

TEST_CASE("capture: an activation with a grid per channel is refused", "[graph][capture]") {
  Grid grid;
  const auto forward = [&](at::Tensor x) {
    return quant::fake_quantize(x, torch::ones({3}), torch::zeros({3}, torch::kInt), -128, 127, 1);
  };
  CHECK_THROWS_WITH(graph::capture(*grid, forward, torch::randn({2, 3, 4, 4})),
                    ContainsSubstring("quantised per channel"));
}

TEST_CASE("fold_batch_norms: refuses a fake-quantised graph", "[graph][fold]") {
  QuantizedNet net(&weight_by_channel);
  CHECK_THROWS_WITH(graph::fold_batch_norms(graph::capture(net, torch::randn({2, 3, 8, 8}))),
                    ContainsSubstring("layer `input_fake_quantize`"));
}

TEST_CASE("count_layers: zeros are those after rounding", "[graph][count]") {
  QuantizedNet net(&weight_by_channel);
  {
    const torch::NoGradGuard no_grad;
    net->conv->weight.fill_(1);
    net->conv->weight[0][0].fill_(0.001);  // rounds to 0
  }
  const auto counts = graph::count_layers(graph::capture(net, torch::randn({2, 3, 8, 8})));
  REQUIRE(counts.size() == 2);
  CHECK(counts[0].layer == "conv");
  CHECK(counts[0].weights == 162);
  CHECK(counts[0].zeros == 9);
  CHECK(counts[0].macs == 162 * 36);
  CHECK(counts[1].macs == 24);
}
