// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/graph/operation_rules.h>

#include "cpp/catch.hpp"

namespace graph = torchslim::graph;
using graph::GridRule;
using graph::has_integer_form;

TEST_CASE("each kind has one rule", "[graph][operation_rules]") {
  for (const auto& rule : graph::operation_rules()) {
    INFO(rule.kind);
    CHECK(&graph::operation_rule(rule.kind) == &rule);
    // Only what has a quantiser behind it can have an activation or a batch norm before that.
    CHECK((rule.grid == GridRule::kOwn || !(rule.takes_activation || rule.takes_batch_norm)));
  }
  CHECK(graph::operation_rule("conv").takes_batch_norm);
  CHECK(graph::operation_rule("move").grid == GridRule::kInput);
  CHECK(graph::operation_rule("").grid == GridRule::kFloat);
  CHECK_THROWS_WITH(graph::operation_rule("convolution"), ContainsSubstring("no kind `convolution`"));
}

TEST_CASE("which forms integers have", "[graph][operation_rules]") {
  const std::vector<int64_t> image{2, 3, 8, 8}, factor{2, 3, 1, 1}, row{2, 3};
  CHECK(has_integer_form("add", {image, image}, image));
  CHECK_FALSE(has_integer_form("add", {image, factor}, image));
  CHECK(has_integer_form("add", {image}, image));  // of a number
  CHECK(has_integer_form("mul", {image, factor}, image));
  CHECK(has_integer_form("mul", {factor, image}, image));
  CHECK_FALSE(has_integer_form("mul", {image, {2, 1, 8, 8}}, image));
  CHECK(has_integer_form("batch_norm", {image}, image));
  CHECK_FALSE(has_integer_form("batch_norm", {row}, row));
  CHECK(has_integer_form("adaptive_avg_pool", {image}, factor));
  CHECK_FALSE(has_integer_form("adaptive_avg_pool", {image}, {2, 3, 2, 2}));
  CHECK_FALSE(has_integer_form("", {image}, image));

  graph::Window window;
  window.kernel = window.stride = {3, 3};
  CHECK(has_integer_form("avg_pool", {image}, {2, 3, 2, 2}, window));
  CHECK_FALSE(has_integer_form("avg_pool", {image}, {2, 3, 3, 3}, window));  // ceil_mode, beyond the edge
  window.padding = {1, 1};
  window.count_include_pad = false;
  CHECK_FALSE(has_integer_form("avg_pool", {image}, {2, 3, 3, 3}, window));
}
