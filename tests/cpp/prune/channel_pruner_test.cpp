// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/prune/channel_pruner.h>

#include "cpp/catch.hpp"
#include "prune/optimizer_state.h"

using namespace torchslim::prune;

namespace {

namespace nn = torch::nn;
namespace optim = torch::optim;

nn::Sequential make_network() {
  torch::manual_seed(0);
  nn::Sequential model(nn::Conv2d(nn::Conv2dOptions(3, 10, 3).padding(1)), nn::BatchNorm2d(10), nn::ReLU(),
                       nn::Conv2d(nn::Conv2dOptions(10, 10, 3).groups(10).padding(1)), nn::BatchNorm2d(10), nn::ReLU6(),
                       nn::Conv2d(nn::Conv2dOptions(10, 6, 1).bias(false)), nn::ReLU(), nn::Flatten(),
                       nn::Linear(6 * 8 * 8, 5));
  const torch::NoGradGuard no_grad;
  for (const auto& item : model->named_parameters()) {
    item.value().add_(0.1 * torch::randn_like(item.value()));
  }
  for (const auto& item : model->named_buffers()) {
    if (item.value().is_floating_point()) {
      item.value().uniform_(0.5, 1.5);
    }
  }
  return model;
}

at::Tensor train(nn::Sequential& model, optim::Optimizer& optimizer, int steps) {
  at::Tensor loss;
  for (int step = 0; step < steps; ++step) {
    torch::manual_seed(step);
    optimizer.zero_grad();
    loss = model->forward(torch::rand({4, 3, 8, 8})).square().mean();
    loss.backward();
    optimizer.step();
  }
  return loss;
}

// What the plan removes, made zero in place.
void zero_channels(nn::Sequential& model, const ChannelPlan& plan) {
  const torch::NoGradGuard no_grad;
  const auto parameters = model->named_parameters();
  for (const auto& cut : torchslim::prune::detail::cuts_by_layer(plan)) {
    if (cut.keep_outputs.empty()) {
      continue;
    }
    auto removed = torch::ones({cut.outputs}, at::kBool);
    removed.index_fill_(0, torch::tensor(cut.keep_outputs), at::Scalar(false));
    for (const char* name : {".weight", ".bias"}) {
      if (const auto* parameter = parameters.find(cut.layer + name)) {
        parameter->index_put_({removed}, torch::zeros({}));
      }
    }
  }
}

}  // namespace

TEST_CASE("ChannelPruner: removed equals zeroed", "[prune][channel_pruner]") {
  auto model = make_network();
  auto zeroed = make_network();
  const auto example = torch::rand({2, 3, 8, 8});
  ChannelPruner pruner(model, example, ChannelPrunerOptions().ratio(0.4));
  const auto plan = pruner.plan();
  REQUIRE(plan.cuts.size() == 2);
  pruner.step();
  CHECK(to_json(pruner.plan()) == to_json(plan));
  zero_channels(zeroed, plan);
  model->eval();
  zeroed->eval();
  CHECK(at::allclose(model->forward(example), zeroed->forward(example), 1e-5, 1e-6));
  CHECK(model[0]->as<nn::Conv2d>()->options.out_channels() == 6);
  CHECK(model[1]->as<nn::BatchNorm2d>()->options.num_features() == 6);
  CHECK(model[3]->as<nn::Conv2d>()->options.groups() == 6);
  CHECK(model[3]->as<nn::Conv2d>()->options.in_channels() == 6);
  CHECK(model[6]->as<nn::Conv2d>()->weight.sizes() == at::IntArrayRef({4, 6, 1, 1}));
  CHECK(model[9]->as<nn::Linear>()->options.in_features() == 4 * 64);
  torchslim::graph::capture(model, example);
}

TEST_CASE("ChannelPruner: training goes on with the optimiser's state", "[prune][channel_pruner]") {
  auto model = make_network();
  optim::AdamW optimizer(model->parameters(), optim::AdamWOptions(1e-3).amsgrad(true));
  const auto loss = train(model, optimizer, 2);  // alive: its graph holds nodes of the old shapes
  ChannelPruner pruner(model, torch::rand({2, 3, 8, 8}), {}, &optimizer);
  const auto weight = model[6]->as<nn::Conv2d>()->weight;
  const auto before = torchslim::prune::detail::state_tensors(optimizer, weight).at(0)->clone();
  const auto plan = pruner.plan();
  pruner.step();
  for (const auto& parameter : model->parameters()) {
    CHECK(parameter.grad().sizes() == parameter.sizes());
    for (const auto* state : torchslim::prune::detail::state_tensors(optimizer, parameter)) {
      CHECK(state->sizes() == parameter.sizes());
    }
  }
  const auto expected =
      before.index_select(0, torch::tensor(plan.cuts[1].keep)).index_select(1, torch::tensor(plan.cuts[0].keep));
  CHECK(at::equal(*torchslim::prune::detail::state_tensors(optimizer, weight).at(0), expected));
  CHECK(weight.is_same(model[6]->as<nn::Conv2d>()->weight));
  train(model, optimizer, 2);
}

TEST_CASE("apply_plan: repeats a plan of two steps on a fresh model", "[prune][channel_pruner]") {
  auto model = make_network();
  const auto example = torch::rand({2, 3, 8, 8});
  ChannelPruner pruner(model, example, ChannelPrunerOptions().ratio(0.25));
  pruner.step();
  pruner.step();
  auto fresh = make_network();
  apply_plan(*fresh, channel_plan_from_json(to_json(pruner.plan())));
  model->eval();
  fresh->eval();
  CHECK(at::equal(model->forward(example), fresh->forward(example)));
}

TEST_CASE("apply_plan: nothing changes after an error", "[prune][channel_pruner]") {
  auto model = make_network();
  const auto plan = ChannelPruner(model, torch::rand({2, 3, 8, 8})).plan();
  auto other = plan;
  std::string message;
  SECTION("a layer that is missing") {
    other.cuts[1].chain.layer = "nowhere";
    message = "no layer `nowhere`";
  }
  SECTION("a layer of another kind") {
    other.cuts[1].chain.consumers[0].layer = "7";
    message = "`7` must be a linear, got";
  }
  SECTION("a layer of another size") {
    other.cuts[1].chain.channels = 20;
    message = "made for a `6` with 20 filters, the model's has 6";
  }
  CHECK_THROWS_WITH(apply_plan(*model, other), ContainsSubstring(message));
  optim::LBFGS lbfgs(model->parameters());
  CHECK_THROWS_WITH(apply_plan(*model, plan, &lbfgs), ContainsSubstring("torch::optim::LBFGS"));
  const auto expected = make_network();
  for (const auto& item : model->named_parameters()) {
    CHECK(at::equal(item.value(), expected->named_parameters()[item.key()]));
  }
}
