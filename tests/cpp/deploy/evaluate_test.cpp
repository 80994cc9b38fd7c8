// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/deploy/evaluate.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/ptl.h>

#include "cpp/catch.hpp"
#include "cpp/deploy/files.h"
#include "cpp/deploy/networks.h"

using namespace torchslim::deploy;

TEST_CASE("accuracy: the first of equal logits counts", "[deploy][evaluate]") {
  const at::Tensor logits = torch::tensor({{1.0F, 1.0F}, {0.0F, 2.0F}, {3.0F, 2.0F}, {0.0F, 0.0F}});
  CHECK(accuracy(logits, torch::tensor({0, 1, 0, 0}, torch::kLong)) == 1.0);
  CHECK(accuracy(logits, torch::tensor({1, 1, 0, 1}, torch::kLong)) == 0.5);
  CHECK_THROWS_WITH(accuracy(logits, torch::tensor({0, 1}, torch::kLong)), ContainsSubstring("4 rows, got shape [2]"));
  CHECK_THROWS_AS(accuracy(logits, torch::zeros({4})), c10::TypeError);
}

TEST_CASE("compare_outputs: counts answers and steps", "[deploy][evaluate]") {
  const at::Tensor trained = torch::tensor({{0.5F, 1.0F}, {2.0F, -1.0F}});
  const Agreement same = compare_outputs(trained, trained, 0.5);
  CHECK(same.top1 == 1.0);
  CHECK(same.max_steps == 0);
  const Agreement near = compare_outputs(torch::tensor({{1.5F, 1.0F}, {2.0F, -1.0F}}), trained, 0.5);
  CHECK(near.top1 == 0.5);
  CHECK(near.max_steps == 2);
  CHECK(near.mean_steps == 0.5);
  CHECK_FALSE(near.max_relative.has_value());
  CHECK_THROWS_WITH(compare_outputs(trained, trained, 0.0), ContainsSubstring("step must be > 0, got 0"));
  CHECK_THROWS_WITH(compare_outputs(trained, torch::zeros({2, 3}), 1.0), ContainsSubstring("[2, 2] and [2, 3]"));
}

TEST_CASE("compare_outputs: without a grid, differences are shares of the largest output", "[deploy][evaluate]") {
  const at::Tensor trained = torch::tensor({{0.5F, 1.0F}, {-4.0F, 2.0F}});
  const Agreement near = compare_outputs(torch::tensor({{0.5F, 1.5F}, {-3.0F, 2.0F}}), trained);
  CHECK(near.top1 == 1.0);
  CHECK(near.max_relative == 0.25);
  CHECK_FALSE(near.max_steps.has_value());
  CHECK_FALSE(near.mean_steps.has_value());
  const at::Tensor nothing = torch::zeros({2, 2});
  CHECK(compare_outputs(nothing, nothing).max_relative == 0.0);
}

TEST_CASE("count_reference_differences: 0 for a file, and each output that is off", "[deploy][evaluate]") {
  torch::manual_seed(1);
  const IntegerGraph graph = lower(networks::mobilenet());
  const std::string path = files::temporary("evaluate.ptl");
  save_ptl(graph, path);
  PtlModel file(path);
  const at::Tensor images = networks::images(graph, 37);
  at::Tensor outputs = run_batches(file, images, 8);
  CHECK(outputs.sizes() == at::IntArrayRef({37, 10}));
  CHECK(count_reference_differences(outputs, graph, images) == 0);
  outputs.index_put_({3, 4}, outputs[3][4] + graph.nodes.back().scale);
  CHECK(count_reference_differences(outputs, graph, images) == 1);
  CHECK_THROWS_WITH(run_batches(file, images, 0), ContainsSubstring("got 0"));
  IntegerGraph ends_in_floats = graph;
  ends_in_floats.nodes.back().op = IntegerOp::kFloat;
  CHECK_THROWS_WITH(count_reference_differences(outputs, ends_in_floats, images), ContainsSubstring("ends in floats"));
}
