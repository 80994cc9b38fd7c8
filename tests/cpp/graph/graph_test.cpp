// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/graph/graph.h>

#include "cpp/catch.hpp"

namespace graph = torchslim::graph;
using graph::OpKind;

namespace {

graph::Graph diamond() {
  graph::Graph result;
  result.nodes.resize(4);
  result.nodes[0].shape = {1, 2, 4, 4};
  result.nodes[1].kind = OpKind::kConv2d;
  result.nodes[1].layer = "a\"b\\c\n";
  result.nodes[1].inputs = {0};
  result.nodes[1].shape = {1, 2, 4, 4};
  result.nodes[1].weight = {"w", torch::zeros({2, 2, 1, 1})};
  result.nodes[2].kind = OpKind::kRelu;
  result.nodes[2].inputs = {1};
  result.nodes[3].kind = OpKind::kAdd;
  result.nodes[3].inputs = {1, 2};
  return result;
}

}  // namespace

TEST_CASE("graph: users are listed once and in order", "[graph]") {
  auto graph = diamond();
  CHECK(graph.users(0) == std::vector<int64_t>{1});
  CHECK(graph.users(1) == std::vector<int64_t>{2, 3});
  CHECK(graph.users(3).empty());
  graph.nodes[3].inputs = {1, 1};
  CHECK(graph.users(1) == std::vector<int64_t>{2, 3});
  CHECK_THROWS_AS(graph.users(4), c10::IndexError);
}

TEST_CASE("graph: JSON escapes names and leaves out what a kind does not use", "[graph]") {
  const std::string json = graph::to_json(diamond());
  CHECK_THAT(json, ContainsSubstring("\"layer\": \"a\\\"b\\\\c\\u000a\""));
  CHECK_THAT(json, ContainsSubstring("\"weight\": {\"name\": \"w\", \"shape\": [2, 2, 1, 1]}"));
  CHECK_THAT(json, ContainsSubstring("{\"kind\": \"add\", \"layer\": \"\", \"inputs\": [1, 2], \"shape\": []}"));
}

TEST_CASE("graph: the table has a line a node", "[graph]") {
  const std::string table = graph::to_string(diamond());
  CHECK(std::count(table.begin(), table.end(), '\n') == 6);  // the heading, 4 nodes, a name with a newline
  CHECK_THAT(table, ContainsSubstring("(1, 2, 4, 4)"));
}
