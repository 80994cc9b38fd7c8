// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/report_layers.h>
#include <torchslim/graph/count.h>

#include <numeric>

#include "cpp/catch.hpp"
#include "cpp/deploy/networks.h"

using namespace torchslim::deploy;
using networks::Builder;

namespace {

networks::Graph example() {
  Builder builder(3, 12);
  builder.conv({8});
  builder.max_pool(2, 2);
  builder.conv({10, 1});
  builder.global_avg_pool();
  builder.flatten();
  builder.linear(5);
  return builder.graph;
}

}  // namespace

TEST_CASE("report_layers: costs are those of the graph", "[deploy][report_layers]") {
  torch::manual_seed(0);
  const networks::Graph graph = example();
  const auto rows = report_layers(graph, torch::randn({3, 3, 12, 12}));
  const IntegerGraph integers = lower(graph);
  REQUIRE(rows.size() == integers.nodes.size());
  int64_t macs = 0, weights = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(rows[i].layer == integers.nodes[i].layer);
    CHECK(rows[i].op == to_string(integers.nodes[i].op));
    macs += rows[i].macs;
    weights += rows[i].parameters - (integers.nodes[i].bias.defined() ? integers.nodes[i].bias.numel() : 0);
  }
  CHECK(macs == torchslim::graph::count_macs(graph));
  CHECK(weights == count_weights(integers).total);
  CHECK(rows[1].bytes == 8 * 3 * 9 + 12 * 8);
  CHECK(rows[1].weight_bits == 8);
  CHECK(rows[2].weight_bits == 0);
}

TEST_CASE("report_layers: steps count every element, and the input is rounded to nearest", "[deploy][report_layers]") {
  torch::manual_seed(1);
  const networks::Graph graph = example();
  const auto rows = report_layers(graph, torch::randn({11, 3, 12, 12}) * 0.1);  // more than are run at once
  for (const LayerReport& row : rows) {
    REQUIRE(row.steps.size() == kStepBins.size() + 1);
    CHECK(row.mean_steps <= row.max_steps);
  }
  const auto elements = [&](size_t i) {
    return std::accumulate(rows[i].steps.begin(), rows[i].steps.end(), int64_t{0});
  };
  CHECK(elements(0) == 11 * 3 * 12 * 12);
  CHECK(elements(1) == 11 * 8 * 12 * 12);
  CHECK(rows[0].steps[0] == elements(0));  // within the range, nothing is more than half a step away
  CHECK(rows[0].max_steps <= 0.51);
  CHECK(rows.back().max_steps > 0.51);  // errors add up
  CHECK(rows.back().mean_steps < 20);   // and the float network is the same network
}

TEST_CASE("report_layers: what saturates is far away", "[deploy][report_layers]") {
  torch::manual_seed(2);
  const networks::Graph graph = example();
  const auto rows = report_layers(graph, torch::full({1, 3, 12, 12}, 1000.0F));
  CHECK(rows[0].steps.back() == 3 * 12 * 12);
}

TEST_CASE("report_layers: no images are refused", "[deploy][report_layers]") {
  CHECK_THROWS_WITH(report_layers(example(), torch::zeros({0, 3, 12, 12})), ContainsSubstring("there are no images"));
}
