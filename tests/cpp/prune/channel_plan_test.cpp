// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/prune/channel_plan.h>

#include <cmath>

#include "cpp/catch.hpp"

using namespace torchslim::prune;
using torchslim::graph::Graph;
using torchslim::graph::Grid;
using torchslim::graph::Node;
using torchslim::graph::OpKind;

namespace {

// Builds graphs node by node; every method returns the index of the new node.
struct GraphBuilder {
  Graph graph;

  int64_t add(OpKind kind, std::vector<int64_t> inputs, std::vector<int64_t> shape) {
    Node node;
    node.kind = kind;
    node.inputs = std::move(inputs);
    node.shape = std::move(shape);
    graph.nodes.push_back(std::move(node));
    return static_cast<int64_t>(graph.nodes.size()) - 1;
  }

  int64_t input(int64_t channels) { return add(OpKind::kInput, {}, {1, channels, 4, 4}); }

  int64_t same(OpKind kind, int64_t from) { return add(kind, {from}, graph.nodes[from].shape); }

  int64_t conv(const std::string& layer, int64_t from, int64_t outputs, int64_t groups = 1) {
    const auto inputs = graph.nodes[from].shape[1];
    const auto index = add(OpKind::kConv2d, {from}, {1, outputs, 4, 4});
    auto& node = graph.nodes[index];
    node.window.groups = groups;
    // Filter i has the magnitude i + 1 everywhere.
    const auto sizes = torch::arange(1, outputs + 1, torch::kFloat).view({outputs, 1, 1, 1});
    node.weight = {layer + ".weight", sizes.expand({outputs, inputs / groups, 3, 3}).contiguous()};
    node.bias = {layer + ".bias", torch::zeros({outputs})};
    return index;
  }

  int64_t batch_norm(const std::string& layer, int64_t from) {
    const auto index = same(OpKind::kBatchNorm2d, from);
    auto& node = graph.nodes[index];
    const auto channels = node.shape[1];
    node.weight = {layer + ".weight", torch::arange(channels, 0, -1).to(torch::kFloat)};
    node.bias = {layer + ".bias", torch::zeros({channels})};
    node.running_mean = {layer + ".running_mean", torch::zeros({channels})};
    node.running_var = {layer + ".running_var", torch::ones({channels})};
    return index;
  }

  int64_t linear(const std::string& layer, int64_t from, int64_t outputs) {
    const auto inputs = graph.nodes[from].shape[1];
    const auto index = add(OpKind::kLinear, {from}, {1, outputs});
    graph.nodes[index].weight = {layer + ".weight", torch::ones({outputs, inputs})};
    return index;
  }
};

// conv a → bn → relu → fake-quantise → depthwise d → bn → relu6 → conv b → pool → flatten → linear c.
GraphBuilder chain() {
  GraphBuilder g;
  auto x = g.batch_norm("bn", g.conv("a", g.input(3), 6));
  x = g.same(OpKind::kFakeQuantize, g.same(OpKind::kRelu, x));
  g.graph.nodes[x].grid = Grid();
  x = g.same(OpKind::kRelu6, g.batch_norm("dbn", g.conv("d", x, 6, 6)));
  x = g.same(OpKind::kMaxPool2d, g.conv("b", x, 4));
  x = g.add(OpKind::kFlatten, {x}, {1, 4 * 16});
  g.linear("c", x, 2);
  return g;
}

}  // namespace

TEST_CASE("find_channel_chains: through batch norms, activations, pools, depthwise and flatten",
          "[prune][channel_plan]") {
  const auto chains = find_channel_chains(chain().graph);
  REQUIRE(chains.size() == 2);
  CHECK(chains[0].layer == "a");
  CHECK(chains[0].channels == 6);
  CHECK(chains[0].batch_norms == std::vector<std::string>{"bn", "dbn"});
  CHECK(chains[0].depthwise == std::vector<std::string>{"d"});
  REQUIRE(chains[0].consumers.size() == 1);
  CHECK(chains[0].consumers[0].layer == "b");
  CHECK(chains[0].consumers[0].repeat == 1);
  REQUIRE(chains[1].consumers.size() == 1);
  CHECK(chains[1].consumers[0].layer == "c");
  CHECK(chains[1].consumers[0].linear);
  CHECK(chains[1].consumers[0].repeat == 16);
}

TEST_CASE("find_channel_chains: channels that meet something else stay", "[prune][channel_plan]") {
  GraphBuilder g;
  const auto input = g.input(4);
  SECTION("an add") { g.conv("end", g.add(OpKind::kAdd, {g.conv("a", input, 4), input}, {1, 4, 4, 4}), 2); }
  SECTION("a grouped convolution") { g.conv("end", g.conv("a", input, 4), 4, 2); }
  SECTION("the end of the network") { g.same(OpKind::kRelu, g.conv("a", input, 4)); }
  SECTION("a grid per channel") {
    const auto x = g.same(OpKind::kFakeQuantize, g.conv("a", input, 4));
    g.graph.nodes[x].grid = Grid{{}, {}, -128, 127, 1};
    g.conv("end", x, 2);
  }
  SECTION("a tensor that another layer shares") {
    const auto a = g.conv("a", input, 4);
    const auto b = g.conv("b", a, 4);
    g.graph.nodes[b].weight.value = g.graph.nodes[a].weight.value;
    g.add(OpKind::kAdd, {g.conv("c", b, 4), input}, {1, 4, 4, 4});
  }
  SECTION("a weight that no module owns") {
    const auto a = g.conv("a", input, 4);
    g.graph.nodes[a].weight.name = "kernels";
    g.conv("end", a, 2);
  }
  for (const auto& found : find_channel_chains(g.graph)) {
    CHECK(found.layer != "a");
  }
}

TEST_CASE("plan_channels: the least important filters go, the first of equal ones", "[prune][channel_plan]") {
  auto g = chain();
  ChannelPlanOptions options;
  options.exclude = {"b"};
  SECTION("l1") { CHECK(plan_channels(g.graph, options).cuts.at(0).keep == std::vector<int64_t>{3, 4, 5}); }
  SECTION("bn, whose scales fall where the filters rise") {
    options.criterion = ChannelCriterion::kBatchNorm;
    CHECK(plan_channels(g.graph, options).cuts.at(0).keep == std::vector<int64_t>{0, 1, 2});
  }
  SECTION("ties") {
    g.graph.nodes[1].weight.value.fill_(1.0F);
    CHECK(plan_channels(g.graph, options).cuts.at(0).keep == std::vector<int64_t>{3, 4, 5});
  }
  SECTION("round_to rounds up") {
    options.round_to = 4;
    CHECK(plan_channels(g.graph, options).cuts.at(0).keep.size() == 4);
    options.round_to = 8;
    CHECK(plan_channels(g.graph, options).cuts.empty());
  }
  SECTION("one filter stays") {
    options.ratio = 0.99;
    CHECK(plan_channels(g.graph, options).cuts.at(0).keep == std::vector<int64_t>{5});
  }
  SECTION("bad input") {
    options.ratio = 1.0;
    CHECK_THROWS_WITH(plan_channels(g.graph, options), ContainsSubstring("ratio must be in [0, 1), got 1"));
    options.ratio = 0.5;
    g.graph.nodes[1].weight.value[0] = std::nan("");
    CHECK_THROWS_WITH(plan_channels(g.graph, options), ContainsSubstring("`a` has NaN among its scores"));
    options.exclude = {"x"};
    CHECK_THROWS_WITH(plan_channels(g.graph, options), ContainsSubstring("nearest: `a`, `b`"));
  }
}

TEST_CASE("compose: two plans in a row are one", "[prune][channel_plan]") {
  auto first = plan_channels(chain().graph);
  auto second = first;
  second.cuts[0].chain.channels = 3;
  second.cuts[0].keep = {0, 2};
  second.cuts.pop_back();
  const auto both = compose(first, second);
  CHECK(both.cuts[0].chain.channels == 6);
  CHECK(both.cuts[0].keep == std::vector<int64_t>{3, 5});
  CHECK(both.cuts[1].keep == first.cuts[1].keep);
  CHECK_THROWS_WITH(compose(first, first), ContainsSubstring("`a` has 3 filters left"));
}

TEST_CASE("cuts_by_layer: a layer that ends one chain and starts another is cut once", "[prune][channel_plan]") {
  const auto cuts = torchslim::prune::detail::cuts_by_layer(plan_channels(chain().graph));
  std::vector<std::string> layers;
  for (const auto& cut : cuts) {
    layers.push_back(cut.layer);
    if (cut.layer == "b") {
      CHECK(cut.keep_outputs == std::vector<int64_t>{2, 3});
      CHECK(cut.keep_inputs == std::vector<int64_t>{3, 4, 5});
    }
    if (cut.layer == "c") {
      CHECK(cut.inputs == 64);
      CHECK(cut.keep_inputs.size() == 32);
      CHECK(cut.keep_inputs.front() == 32);
    }
  }
  CHECK(layers == std::vector<std::string>{"a", "bn", "dbn", "d", "b", "c"});
}
