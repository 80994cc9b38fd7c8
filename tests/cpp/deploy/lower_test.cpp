// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/reference.h>

#include <limits>

#include "cpp/catch.hpp"
#include "cpp/deploy/networks.h"

using namespace torchslim::deploy;
using torchslim::graph::Graph;
using torchslim::graph::Node;
using torchslim::graph::OpKind;

namespace {

Node& first(Graph& graph, OpKind kind) {
  for (Node& node : graph.nodes) {
    if (node.kind == kind) {
      return node;
    }
  }
  throw std::logic_error("the graph has no such node");
}

std::vector<std::string> ops(const IntegerGraph& graph) {
  std::vector<std::string> found;
  for (const IntegerNode& node : graph.nodes) {
    found.emplace_back(to_string(node.op));
  }
  return found;
}

std::string refusal(const Graph& graph) {
  try {
    lower(graph);
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "";
}

}  // namespace

TEST_CASE("lower: a network becomes integers with the trained grids", "[deploy][lower]") {
  torch::manual_seed(1);
  networks::Builder net(3, 12);
  net.conv({8});
  net.max_pool(2, 2);
  net.global_avg_pool();
  net.flatten();
  net.linear(5);
  const IntegerGraph graph = lower(net.graph);
  CHECK(ops(graph) ==
        std::vector<std::string>{"input", "conv2d", "max_pool2d", "global_avg_pool", "flatten", "linear"});
  size_t i = 0;  // the grids in the order of the graph's own quantisers
  for (const Node& node : net.graph.nodes) {
    if (node.kind == OpKind::kFakeQuantize && node.layer.find("pool") == std::string::npos) {
      const IntegerNode& lowered = graph.nodes[std::array<size_t, 3>{0, 1, 5}.at(i++)];
      CHECK(lowered.scale == node.grid->scale.item<float>());
      CHECK(lowered.zero_point == node.grid->zero_point.item<int32_t>());
    }
  }
  for (const size_t copy : {2, 3, 4}) {
    CHECK(graph.nodes[copy].scale == graph.nodes[1].scale);
    CHECK(graph.nodes[copy].zero_point == graph.nodes[1].zero_point);
  }
  CHECK(graph.nodes[1].clamp_min == graph.nodes[1].zero_point);  // ReLU
  CHECK(graph.nodes[5].clamp_min == -128);
  CHECK(graph.nodes[1].layer == net.graph.nodes[2].layer);
  CHECK_THAT(to_string(graph), ContainsSubstring("global_avg_pool"));
}

TEST_CASE("lower: what runs in integers is what was trained, to a step", "[deploy][lower]") {
  torch::manual_seed(GENERATE(2, 3));
  for (const int which : {0, 1, 2}) {
    // The builder's own values are the fake-quantised network, batch norm unfolded, biases not rounded.
    networks::Builder net(3, 16);
    int64_t x = net.conv({16, 3, 2}, which == 2 ? OpKind::kRelu6 : OpKind::kRelu);
    if (which > 0) {
      const int64_t left = net.conv({16, 3, 1, 16}, std::nullopt);
      x = net.add(left, x, which == 1 ? std::optional(OpKind::kRelu) : std::nullopt);
    }
    net.avg_pool(2, 2);
    net.flatten();
    net.linear(10);
    const IntegerGraph graph = lower(net.graph);
    const at::Tensor steps = (run_integer(graph, net.values[0]).values - net.values.back()) / graph.nodes.back().scale;
    CHECK(steps.abs().max().item<double>() < 4);
    CHECK(steps.abs().mean().item<double>() < 1);
  }
}

TEST_CASE("lower: ReLU6 bounds at the code of 6, alone or in a layer", "[deploy][lower]") {
  torch::manual_seed(4);
  networks::Builder net(1, 6);
  net.conv({4}, std::nullopt);
  net.graph.nodes.back().grid->scale.fill_(0.1F);
  net.graph.nodes.back().grid->zero_point.fill_(-20);
  SECTION("alone") {
    net.activation(OpKind::kRelu6);
    const IntegerGraph graph = lower(net.graph);
    REQUIRE(graph.nodes.back().op == IntegerOp::kClamp);
    CHECK(graph.nodes.back().clamp_min == -20);
    CHECK(graph.nodes.back().clamp_max == 40);
  }
  SECTION("in a convolution, and an activation that changes nothing disappears") {
    const size_t fake_quantize = net.graph.nodes.size() - 1;
    Node relu6 = net.graph.nodes[fake_quantize];
    relu6.kind = OpKind::kRelu6;
    net.graph.nodes.insert(net.graph.nodes.begin() + static_cast<int64_t>(fake_quantize), relu6);
    net.graph.nodes.back().inputs = {static_cast<int64_t>(fake_quantize)};
    net.values.push_back(net.values.back());
    net.activation(OpKind::kRelu);
    const IntegerGraph graph = lower(net.graph);
    REQUIRE(graph.nodes.size() == 2);
    CHECK(graph.nodes[1].clamp_min == -20);
    CHECK(graph.nodes[1].clamp_max == 40);
  }
}

TEST_CASE("lower: zeros are counted in the codes", "[deploy][lower]") {
  torch::manual_seed(5);
  networks::Builder net(1, 6);
  net.conv({4, 3, 1, 1, 1, false, true});
  Node& conv = first(net.graph, OpKind::kConv2d);
  conv.weight.value.index_put_({1}, 0.0);            // a whole channel
  conv.weight.value.index_put_({0, 0, 0, 0}, 1e-6);  // rounds to 0
  conv.weight_grid->scale = torchslim::quant::quantize_weight(conv.weight.value).scale;
  const IntegerGraph graph = lower(net.graph);
  const WeightCount count = count_weights(graph);
  CHECK(count.total == 36);
  CHECK(count.nonzero == graph.nodes[1].codes.ne(0).sum().item<int64_t>());
  CHECK(graph.nodes[1].codes[1].count_nonzero().item<int64_t>() == 0);
  CHECK(count.sparsity() > 0.25);
  CHECK(checksum(graph) == checksum(lower(net.graph)));
  IntegerGraph other = graph;
  other.nodes[1].codes = other.nodes[1].codes.clone().neg();
  CHECK(checksum(other) != checksum(graph));
}

TEST_CASE("lower: what is not quantised is refused with its layer and the remedy", "[deploy][lower]") {
  torch::manual_seed(6);
  networks::Builder net(3, 8);
  net.conv({8});
  SECTION("no quantiser after the last layer") {
    Node relu = net.graph.nodes.back();
    net.graph.nodes.pop_back();
    CHECK_THAT(refusal(net.graph), ContainsSubstring("conv2 (conv2d)") && ContainsSubstring("before it is returned") &&
                                       ContainsSubstring("quant.prepare"));
  }
  SECTION("a float model") { CHECK_THAT(refusal(networks::vgg(false)), ContainsSubstring("quant.prepare")); }
  SECTION("a weight without a grid") {
    first(net.graph, OpKind::kConv2d).weight_grid.reset();
    const IntegerGraph graph = lower(net.graph);  // stays in float, between codes
    CHECK(graph.nodes[1].op == IntegerOp::kFloat);
    CHECK(graph.nodes.back().op == IntegerOp::kQuantize);
    CHECK_THAT(to_string(graph), ContainsSubstring("float"));
  }
  SECTION("a weight grid without steps") {
    first(net.graph, OpKind::kConv2d).weight_grid->scale.zero_();
    CHECK_THAT(refusal(net.graph), ContainsSubstring("scale must be > 0, normal and finite"));
  }
  SECTION("a weight grid that is not symmetric") {
    first(net.graph, OpKind::kConv2d).weight_grid->quant_min = -8;
    CHECK_THAT(refusal(net.graph), ContainsSubstring("a grid [-q, q] within [-127, 127], got [-8, 127]"));
  }
  SECTION("two readers of a float") {
    Node add;
    add.kind = OpKind::kAdd;
    add.layer = "skip";
    add.inputs = {2, 3};  // convolution and batch norm
    net.graph.nodes.push_back(add);
    CHECK_THAT(refusal(net.graph), ContainsSubstring("before several operations read it"));
  }
  SECTION("a batch norm alone") {
    Node bn = net.graph.nodes[3];
    bn.inputs = {net.last()};
    bn.layer = "bn_alone";
    net.graph.nodes.push_back(bn);
    CHECK(lower(net.graph).nodes.back().op == IntegerOp::kFloat);
  }
  SECTION("an empty graph") { CHECK_THAT(refusal({}), ContainsSubstring("must begin with its input")); }
}

TEST_CASE("lower: grids that runtimes cannot hold are refused with their numbers", "[deploy][lower]") {
  torch::manual_seed(7);
  networks::Builder net(3, 8);
  const int64_t left = net.conv({8});
  const int64_t right = net.conv({8});
  net.add(left, right);
  net.global_avg_pool();
  Graph& graph = net.graph;
  torchslim::graph::Grid& last = *graph.nodes.back().grid;
  const auto grid_of = [&](int64_t i) -> torchslim::graph::Grid& { return *graph.nodes[i].grid; };
  const auto add_grid = [&]() -> torchslim::graph::Grid& { return *graph.nodes[graph.nodes.size() - 3].grid; };
  SECTION("a pool with a grid of its own runs in float, and is rounded to it") {
    last.scale = last.scale * 2;
    const IntegerGraph lowered = lower(graph);
    CHECK(lowered.nodes.back().op == IntegerOp::kQuantize);
    CHECK(lowered.nodes.back().scale == last.scale.item<float>());
  }
  SECTION("a scale below 2^-12") {
    grid_of(left).scale.fill_(1.0F / 5000);
    CHECK_THAT(refusal(graph), ContainsSubstring("scale must be at least 2^-12 and finite, got 0.0002"));
  }
  SECTION("a scale that is NaN") {
    grid_of(left).scale.fill_(std::numeric_limits<float>::quiet_NaN());
    CHECK_THAT(refusal(graph), ContainsSubstring("got nan"));
  }
  SECTION("a zero point beyond int8") {
    grid_of(left).zero_point.fill_(200);
    CHECK_THAT(refusal(graph), ContainsSubstring("zero point must lie in [-128, 127], got 200"));
  }
  SECTION("a grid beyond int8") {
    grid_of(left).quant_max = 255;
    CHECK_THAT(refusal(graph), ContainsSubstring("within [-128, 127], got [-128, 255]"));
  }
  SECTION("a zero point outside its grid") {
    grid_of(left).quant_min = -8;
    grid_of(left).quant_max = 7;
    grid_of(left).zero_point.fill_(8);
    CHECK_THAT(refusal(graph), ContainsSubstring("zero point must lie in [-8, 7], got 8"));
  }
  SECTION("an addition whose scales are too far apart") {
    add_grid().scale.fill_(1.0F / 4096);
    last.scale.fill_(1.0F / 4096);
    grid_of(left).scale.fill_(0.5F);
    CHECK_THAT(refusal(graph), ContainsSubstring("[2^-14, 2^8)") && ContainsSubstring("2048"));
  }
  SECTION("NaN in a weight") {
    first(graph, OpKind::kConv2d).weight.value.index_put_({0, 0, 0, 0}, NAN);
    CHECK_THAT(refusal(graph), ContainsSubstring("weight holds NaN"));
  }
  SECTION("NaN in a batch norm") {
    first(graph, OpKind::kBatchNorm2d).running_var.value.index_put_({1}, NAN);
    CHECK_THAT(refusal(graph), ContainsSubstring("conv2 (conv2d)") && ContainsSubstring("NaN"));
  }
}

TEST_CASE("lower: averages that integers have no form of run in float", "[deploy][lower]") {
  torch::manual_seed(8);
  networks::Builder net(3, 9);
  SECTION("average with ceil_mode") {
    net.avg_pool(2, 2);
    Node& pool = first(net.graph, OpKind::kAvgPool2d);
    pool.shape = {8, 3, 5, 5};
    CHECK(lower(net.graph).nodes[1].op == IntegerOp::kFloat);
  }
  SECTION("average without the padding") {
    net.avg_pool(3, 2, 1);
    first(net.graph, OpKind::kAvgPool2d).window.count_include_pad = false;
    CHECK(lower(net.graph).nodes[1].op == IntegerOp::kFloat);
  }
}
