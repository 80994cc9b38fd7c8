// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/prune/magnitude_pruner.h>
#include <torchslim/prune/schedule.h>

#include <cmath>
#include <functional>
#include <memory>

#include "cpp/catch.hpp"
#include "prune/optimizer_state.h"

using torchslim::prune::ConstantSchedule;
using torchslim::prune::MagnitudePruner;
using torchslim::prune::MagnitudePrunerOptions;
using torchslim::prune::OneShotSchedule;
using torchslim::prune::PolynomialSchedule;
using torchslim::prune::Scope;

namespace {

namespace optim = torch::optim;
using MakeOptimizer = std::function<std::unique_ptr<optim::Optimizer>(torch::nn::Module&)>;

torch::nn::Sequential make_model() {
  torch::manual_seed(0);
  return torch::nn::Sequential(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3)), torch::nn::BatchNorm2d(8),
                               torch::nn::ReLU(), torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 8, 3).groups(8)),
                               torch::nn::Flatten(), torch::nn::Linear(8 * 2 * 2, 5));
}

std::vector<at::Tensor> weights_of(torch::nn::Sequential& model) {
  const auto parameters = model->named_parameters();
  return {parameters["0.weight"], parameters["3.weight"], parameters["5.weight"]};
}

void train_step(torch::nn::Sequential& model, optim::Optimizer& optimizer, int step) {
  torch::manual_seed(100 + step);
  optimizer.zero_grad();
  model->forward(torch::randn({4, 3, 6, 6})).square().mean().backward();
  optimizer.step();
}

template <typename Optimizer, typename Options>
MakeOptimizer maker(Options options) {
  return [options](torch::nn::Module& model) { return std::make_unique<Optimizer>(model.parameters(), options); };
}

std::vector<MakeOptimizer> optimizers() {
  return {
      maker<optim::SGD>(optim::SGDOptions(0.05)),
      maker<optim::SGD>(optim::SGDOptions(0.05).momentum(0.9).weight_decay(1e-2).nesterov(true)),
      maker<optim::Adam>(optim::AdamOptions(0.01).weight_decay(1e-2)),
      maker<optim::AdamW>(optim::AdamWOptions(0.01)),
      maker<optim::AdamW>(optim::AdamWOptions(0.01).amsgrad(true)),
      maker<optim::RMSprop>(optim::RMSpropOptions(0.01).momentum(0.9).centered(true).weight_decay(1e-2)),
  };
}

void check_zero(const at::Tensor& tensor, const at::Tensor& mask) {
  const auto pruned = tensor.masked_select(mask.logical_not());
  CHECK(pruned.count_nonzero().item<int64_t>() == 0);
  CHECK_FALSE(pruned.signbit().any().item<bool>());
}

}  // namespace

TEST_CASE("MagnitudePruner: pruned weights, gradients and states stay zero", "[prune][magnitude_pruner]") {
  const auto make = GENERATE(from_range(optimizers()));
  const auto scope = GENERATE(Scope::kGlobal, Scope::kLayer);
  auto model = make_model();
  const auto optimizer = make(*model);
  const PolynomialSchedule schedule(2, 8, 0.75, 0.1, 3.0, 2);
  MagnitudePruner pruner(*model, schedule, *optimizer, MagnitudePrunerOptions().scope(scope));
  for (int step = 1; step <= 10; ++step) {
    train_step(model, *optimizer, step);
    pruner.step();
    const auto state = pruner.state_dict();
    int64_t total = 0;
    int64_t pruned = 0;
    const auto weights = weights_of(model);
    const std::vector<std::string> keys = {"masks.0", "masks.3", "masks.5"};
    for (size_t i = 0; i < weights.size(); ++i) {
      total += weights[i].numel();
      if (!state.contains(keys[i])) {
        continue;
      }
      const auto mask = state[keys[i]];
      const auto its_pruned = mask.numel() - mask.sum().item<int64_t>();
      if (scope == Scope::kLayer) {
        CHECK(its_pruned == std::llrint(mask.numel() * schedule(step)));
      }
      pruned += its_pruned;
      check_zero(weights[i].detach(), mask);
      check_zero(weights[i].grad(), mask);
      for (const auto* tensor : torchslim::prune::detail::state_tensors(*optimizer, weights[i])) {
        check_zero(*tensor, mask);
      }
    }
    if (scope == Scope::kGlobal) {
      CHECK(pruned == std::llrint(total * schedule(step)));
    }
    CHECK(pruner.sparsity() == static_cast<double>(pruned) / static_cast<double>(total));
  }
  CHECK(std::abs(pruner.finalize() - 0.75) < 0.01);
  CHECK_THROWS_WITH(pruner.step(), ContainsSubstring("the pruner is finalised"));
}

TEST_CASE("MagnitudePruner: resumes to the same bits", "[prune][magnitude_pruner]") {
  auto model = make_model();
  auto resumed = make_model();
  optim::SGD optimizer(model->parameters(), optim::SGDOptions(0.05));
  optim::SGD its_optimizer(resumed->parameters(), optim::SGDOptions(0.05));
  const PolynomialSchedule schedule(0, 6, 0.5);
  MagnitudePruner pruner(*model, schedule, optimizer);
  MagnitudePruner its_pruner(*resumed, schedule, its_optimizer);
  for (int step = 0; step < 10; ++step) {
    if (step == 4) {
      const torch::NoGradGuard no_grad;
      for (const auto& item : model->named_parameters()) {
        resumed->named_parameters()[item.key()].copy_(item.value());
      }
      for (const auto& item : model->named_buffers()) {
        resumed->named_buffers()[item.key()].copy_(item.value());
      }
      its_pruner.load_state_dict(pruner.state_dict());
    }
    train_step(model, optimizer, step);
    pruner.step();
    if (step >= 4) {
      train_step(resumed, its_optimizer, step);
      its_pruner.step();
    }
  }
  for (const auto& item : model->named_parameters()) {
    CHECK(at::equal(item.value(), resumed->named_parameters()[item.key()]));
  }
  CHECK(its_pruner.sparsity() == pruner.sparsity());
}

TEST_CASE("MagnitudePruner: a bad state changes nothing", "[prune][magnitude_pruner]") {
  auto model = make_model();
  MagnitudePruner pruner(*model, ConstantSchedule(0.5));
  pruner.step();
  auto wrong_shape = pruner.state_dict();
  wrong_shape["masks.3"] = wrong_shape["masks.0"];
  CHECK_THROWS_WITH(pruner.load_state_dict(wrong_shape),
                    ContainsSubstring("`masks.3` must be bool of shape [8, 1, 3, 3], got Bool of shape [8, 3, 3, 3]"));
  auto missing = pruner.state_dict();
  missing.erase("masks.0");
  CHECK_THROWS_WITH(pruner.load_state_dict(missing), ContainsSubstring("`masks.0` is missing"));
  auto unknown = pruner.state_dict();
  unknown.insert("masks.9", torch::ones({1}));
  CHECK_THROWS_WITH(pruner.load_state_dict(unknown), ContainsSubstring("expected 5 entries, got 6"));
  CHECK(pruner.sparsity() == 0.5);
}

TEST_CASE("MagnitudePruner: layers by name", "[prune][magnitude_pruner]") {
  auto model = make_model();
  const auto layers = [&](const MagnitudePrunerOptions& options) {
    return MagnitudePruner(*model, ConstantSchedule(0.5), options).layer_sparsity().keys();
  };
  CHECK(layers({}) == std::vector<std::string>{"0", "3", "5"});
  CHECK(layers(MagnitudePrunerOptions().exclude({"0"})) == std::vector<std::string>{"3", "5"});
  CHECK(layers(MagnitudePrunerOptions().names({"5"})) == std::vector<std::string>{"5"});
  CHECK_THROWS_WITH(layers(MagnitudePrunerOptions().exclude({"33"})),
                    ContainsSubstring("is called `33` or lies under it; nearest: `3`"));
}

TEST_CASE("MagnitudePruner: refuses an optimiser that it cannot follow", "[prune][magnitude_pruner]") {
  auto model = make_model();
  optim::LBFGS lbfgs(model->parameters());
  CHECK_THROWS_WITH(MagnitudePruner(*model, ConstantSchedule(0.5), lbfgs),
                    ContainsSubstring("expected an optimiser whose state follows its parameters") &&
                        ContainsSubstring("torch::optim::LBFGS"));
  auto other = make_model();
  optim::Adam adam(other->parameters());
  CHECK_THROWS_WITH(MagnitudePruner(*model, ConstantSchedule(0.5), adam),
                    ContainsSubstring("holds none of the 3 weights to prune"));
}

TEST_CASE("MagnitudePruner: NaN leaves step and masks", "[prune][magnitude_pruner]") {
  auto model = make_model();
  MagnitudePruner pruner(*model, OneShotSchedule(2, 0.5));
  pruner.step();
  {
    const torch::NoGradGuard no_grad;
    weights_of(model)[1].view(-1)[0] = std::nan("");
  }
  CHECK_THROWS_WITH(pruner.step(), ContainsSubstring("`3` (tensors[1]) holds 1 NaN"));
  CHECK(pruner.state_dict()["step"].item<int64_t>() == 1);
}
