// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/graph/capture.h>
#include <torchslim/graph/count.h>
#include <torchslim/graph/fold.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/graph/transposed_weight.h>
#include <torchslim/quant/fake_quantize.h>

#include "cpp/catch.hpp"

namespace graph = torchslim::graph;
namespace nn = torch::nn;
using graph::OpKind;

namespace {

// A transposed convolution whose weight is rounded as prepared models round it, and its batch norm.
struct UpImpl : nn::Module {
  explicit UpImpl(int64_t groups) {
    const auto options = nn::ConvTranspose2dOptions(4, 6, {3, 2}).stride({2, 3}).padding({1, 0}).output_padding({1, 2});
    conv = register_module("conv", nn::ConvTranspose2d(nn::ConvTranspose2dOptions(options).groups(groups).dilation(2)));
    norm = register_module("norm", nn::BatchNorm2d(6));
    norm->running_var.uniform_(0.5, 2);
    norm->running_mean.normal_();
  }

  at::Tensor forward(const at::Tensor& x) {
    const auto& o = conv->options;
    const at::Tensor view = graph::transposed_weight(conv->weight, o.groups());
    const at::Tensor scale = view.detach().abs().flatten(1).amax(1) / 127;
    const at::Tensor rounded =
        torchslim::quant::fake_quantize(view, scale, torch::zeros_like(scale, torch::kInt), -127, 127, 0);
    const at::IntArrayRef padding = std::get<torch::ExpandingArray<2>>(o.padding());
    const at::Tensor weight = graph::transposed_weight(rounds ? rounded : view, o.groups());
    return norm(torch::conv_transpose2d(x, weight, conv->bias, o.stride(), padding, o.output_padding(), o.groups(),
                                        o.dilation()));
  }

  nn::ConvTranspose2d conv{nullptr};
  nn::BatchNorm2d norm{nullptr};
  bool rounds = true;
};
TORCH_MODULE(Up);

}  // namespace

TEST_CASE("transposed_weight: output channels come first, group by group", "[graph][transposed_weight]") {
  const at::Tensor weight = torch::arange(4 * 3 * 2).view({4, 3, 2});  // 4 inputs, 6 outputs, 2 groups
  const at::Tensor view = graph::transposed_weight(weight, 2);
  REQUIRE(view.sizes() == at::IntArrayRef{6, 2, 2});
  for (int64_t o = 0; o < 6; ++o) {
    for (int64_t i = 0; i < 2; ++i) {
      CHECK(view[o][i].equal(weight[o / 3 * 2 + i][o % 3]));
    }
  }
  CHECK(graph::transposed_weight(view, 2).equal(weight));
  CHECK_THROWS_AS(graph::transposed_weight(weight, 3), c10::ValueError);
}

TEST_CASE("capture: a rounded transposed convolution keeps its parameter, its name and its grid",
          "[graph][transposed_weight]") {
  const int64_t groups = GENERATE(1, 2);
  torch::manual_seed(groups);
  Up up(groups);
  up->eval();
  const at::Tensor x = torch::randn({2, 4, 5, 4});
  const graph::Graph captured = graph::capture(up, x);
  REQUIRE(captured.nodes.size() == 3);
  const graph::Node& node = captured.nodes[1];
  CHECK(node.kind == OpKind::kConvTranspose2d);
  CHECK(node.layer == "conv");
  CHECK(node.weight.name == "conv.weight");
  CHECK(node.weight.value.is_alias_of(up->conv->weight));
  REQUIRE(node.weight_grid);
  CHECK(node.weight_grid->scale.numel() == 6);
  CHECK(graph::weight_by_outputs(node).size(0) == 6);
  const torch::NoGradGuard no_grad;
  CHECK(at::IntArrayRef(node.shape) == up->forward(x).sizes());
  CHECK(graph::run_float(captured, x).equal(up->forward(x)));
  CHECK(graph::count_macs(captured) == 4 * 5 * 4 * (6 / groups) * 6);
}

TEST_CASE("fold_batch_norms: a transposed convolution takes the batch norm behind it", "[graph][transposed_weight]") {
  const int64_t groups = GENERATE(1, 2);
  torch::manual_seed(groups);
  Up up(groups);
  up->eval();
  up->rounds = false;
  const at::Tensor x = torch::randn({2, 4, 5, 4});
  const graph::Graph folded = graph::fold_batch_norms(graph::capture(up, x));
  REQUIRE(folded.nodes.size() == 2);
  const torch::NoGradGuard no_grad;
  CHECK(torch::allclose(graph::run_float(folded, x), up->forward(x), 1e-4, 1e-5));
}
