// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/graph/capture.h>
#include <torchslim/graph/fold.h>
#include <torchslim/graph/interpret.h>

#include "cpp/catch.hpp"

namespace graph = torchslim::graph;
namespace nn = torch::nn;

namespace {

void randomize(nn::BatchNorm2dImpl& norm) {
  const torch::NoGradGuard no_grad;
  norm.running_mean.normal_();
  norm.running_var.uniform_(0.5, 2);
  norm.weight.uniform_(-1, 1.5);
  norm.bias.normal_();
}

}  // namespace

TEST_CASE("fold_batch_norms: into the convolution before, or a depthwise one", "[graph][fold]") {
  torch::manual_seed(1);
  nn::Sequential net(nn::BatchNorm2d(3), nn::Conv2d(nn::Conv2dOptions(3, 6, 3).groups(3).bias(GENERATE(true, false))),
                     nn::BatchNorm2d(6), nn::ReLU());
  randomize(*net[0]->as<nn::BatchNorm2d>());
  randomize(*net[2]->as<nn::BatchNorm2d>());
  const auto x = torch::randn({2, 3, 8, 8});
  const auto captured = graph::capture(net, x);
  const auto folded = graph::fold_batch_norms(captured);
  REQUIRE(folded.nodes.size() == 4);
  CHECK(folded.nodes[1].window.groups == 3);
  CHECK(folded.nodes[1].weight.value.sizes() == at::IntArrayRef({3, 1, 1, 1}));
  CHECK(folded.nodes[2].weight.name == "1.weight");
  CHECK(folded.nodes[2].bias.value.scalar_type() == torch::kFloat);
  net->eval();
  CHECK(torch::allclose(graph::run_float(folded, x), net->forward(x), 1e-5, 1e-5));
  CHECK(torch::equal(captured.nodes[2].weight.value, net[1]->as<nn::Conv2d>()->weight));
}

TEST_CASE("run_float: another image size is refused", "[graph]") {
  nn::Sequential net(nn::Conv2d(3, 4, 3));
  const auto captured = graph::capture(net, torch::randn({2, 3, 8, 8}));
  CHECK(graph::run_float(captured, torch::randn({7, 3, 8, 8})).size(0) == 7);
  CHECK_THROWS_AS(graph::run_float(captured, torch::randn({2, 3, 8, 9})), c10::ValueError);
  CHECK_THROWS_AS(graph::run_float(graph::Graph(), torch::randn({2, 3})), c10::ValueError);
}
