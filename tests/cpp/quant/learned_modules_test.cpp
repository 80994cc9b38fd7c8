// SPDX-License-Identifier: BSD-3-Clause
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/learned_modules.h>

#include <cmath>
#include <limits>
#include <set>
#include <sstream>

#include "cpp/catch.hpp"

using namespace torchslim::quant;

namespace {

// Makes each of the quantisers on the grid [-8, 7].
template <typename Module>
Module make(std::optional<int64_t> axis) {
  return Module(LearnedRangeOptions().quant_min(-8).quant_max(7).axis(axis));
}

template <>
LearnedFakeQuantize make<LearnedFakeQuantize>(std::optional<int64_t> axis) {
  return LearnedFakeQuantize(LearnedFakeQuantizeOptions().quant_min(-8).quant_max(7).axis(axis).symmetric(false));
}

template <typename Module>
double train(Module& module, const at::Tensor& x, int steps) {
  torch::optim::SGD optimizer(module->parameters(), torch::optim::SGDOptions(0.05));
  double error = 0;
  for (int i = 0; i < steps; ++i) {
    optimizer.zero_grad();
    const auto loss = (module->forward(x) - x).square().mean();
    loss.backward();
    optimizer.step();
    error = loss.template item<double>();
  }
  return error;
}

template <typename Module>
std::set<std::string> keys_of(const Module& module) {
  std::set<std::string> keys;
  for (const auto& item : module->named_parameters()) {
    keys.insert(item.key());
  }
  for (const auto& item : module->named_buffers()) {
    keys.insert(item.key());
  }
  return keys;
}

}  // namespace

TEMPLATE_TEST_CASE("learned quantisers: calculate_qparams is what forward used, also when loaded or cloned",
                   "[quant][learned_modules]", LearnedFakeQuantize, Pact, TrainedThreshold, TrainableRange) {
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(1));
  const auto x = at::randn({3, 4, 50});
  auto module = make<TestType>(axis);
  train(module, x, 10);
  const auto grid = module->calculate_qparams();
  CHECK(grid.zero_point.scalar_type() == at::kInt);
  CHECK(grid.scale.dim() == (axis ? 1 : 0));
  CHECK(at::equal(module->forward(x), fake_quantize(x, grid.scale, grid.zero_point, -8, 7, axis)));

  std::stringstream stream;
  torch::save(module, stream);
  auto loaded = make<TestType>(axis);
  torch::load(loaded, stream);
  loaded->eval();
  CHECK(at::equal(loaded->forward(x), module->forward(x)));
  const auto twin = std::dynamic_pointer_cast<typename TestType::ContainedType>(module->clone());
  CHECK(at::equal(twin->forward(x), module->forward(x)));
  const auto before = module->parameters()[0].clone();
  twin->parameters()[0].detach().mul_(2);
  CHECK(at::equal(module->parameters()[0], before));
}

TEMPLATE_TEST_CASE("learned quantisers: without a first batch there is no grid", "[quant][learned_modules]",
                   LearnedFakeQuantize, Pact, TrainedThreshold, TrainableRange) {
  auto module = make<TestType>(std::nullopt);
  CHECK_THROWS_WITH(module->calculate_qparams(), ContainsSubstring("the grid has no values yet"));
  const auto nan = at::full({3}, std::numeric_limits<float>::quiet_NaN());
  CHECK_THROWS_WITH(module->forward(nan), ContainsSubstring("the first batch holds NaN or infinity"));
  CHECK_THROWS_WITH(module->forward(at::empty({0})), ContainsSubstring("has no elements, its shape is [0]"));
  module->eval();
  CHECK_THROWS_WITH(module->forward(at::randn({3})), ContainsSubstring("call initialize(batch)"));
  module->initialize(at::randn({3}));
  module->forward(at::randn({3}));
  CHECK_THROWS_AS(make<TestType>(std::nullopt)->calculate_qparams(), c10::ValueError);
}

TEST_CASE("learned quantisers: the keys of Python", "[quant][learned_modules]") {
  using Keys = std::set<std::string>;
  CHECK(keys_of(LearnedFakeQuantize()) == Keys{"scale", "zero_point", "initialized"});
  CHECK(keys_of(make<LearnedFakeQuantize>({})) == Keys{"scale", "zero_point", "initialized"});
  CHECK(keys_of(Pact()) == Keys{"alpha", "initialized"});
  CHECK(keys_of(TrainedThreshold()) == Keys{"log2_threshold", "initialized"});
  CHECK(keys_of(TrainableRange()) == Keys{"input_low", "input_range", "initialized"});
}

TEST_CASE("LearnedFakeQuantize: learns a scale that was too large", "[quant][learned_modules]") {
  LearnedFakeQuantize module(LearnedFakeQuantizeOptions().quant_min(-8).quant_max(7).grad_scale("none"));
  const auto x = at::randn({2000});
  module->forward(x);
  CHECK(module->scale.item<float>() == Approx(2 * x.abs().mean().item<float>() / std::sqrt(7.0f)));
  {
    torch::NoGradGuard no_grad;
    module->scale.mul_(3);
  }
  const double before = train(module, x, 1);
  CHECK(train(module, x, 100) < 0.6 * before);
}

TEST_CASE("learned quantisers: an optimiser made before the first batch trains the channels",
          "[quant][learned_modules]") {
  LearnedFakeQuantize module(LearnedFakeQuantizeOptions().axis(0));
  torch::optim::SGD optimizer(module->parameters(), torch::optim::SGDOptions(0.1));
  module->forward(at::randn({3, 50})).square().sum().backward();
  const auto before = module->scale.detach().clone();
  optimizer.step();
  CHECK(module->scale.size(0) == 3);
  CHECK_FALSE(at::equal(module->scale, before));
}

TEST_CASE("learned quantisers: where they begin", "[quant][learned_modules]") {
  const auto x = at::tensor({-1.0f, 0.0f, 2.0f, 3.0f}).reshape({2, 2});
  CHECK(at::allclose(initial_scale(x, 4, 0), at::tensor({0.5f, 2.5f})));
  CHECK(initial_scale(x * 0, 4).item<float>() == 1.0f);
  CHECK(at::equal(initial_alpha(x, 1), at::tensor({2.0f, 3.0f})));
  CHECK(initial_alpha(-x.abs()).item<float>() == 1.0f);
  CHECK(at::allclose(initial_log2_threshold(x, 0), at::tensor({0.0f, std::log2(3.0f)})));
  const auto [low, range] = initial_range(x, 0);
  CHECK(at::equal(low, at::tensor({-1.0f, 0.0f})));
  CHECK(at::equal(range, at::tensor({1.0f, 3.0f})));
  const auto [scale, zero_point] = initial_qparams(x, 0, 4);
  CHECK(scale.item<float>() == 1.0f);
  CHECK(zero_point.item<float>() == 1.0f);
  CHECK_THROWS_WITH(initial_scale(x, 0), ContainsSubstring("quant_max must be > 0, got 0"));
  CHECK_THROWS_WITH(initial_scale(x, 7, 2), ContainsSubstring("axis must be in [-2, 1]"));
}

TEST_CASE("learned quantisers: bad options are refused", "[quant][learned_modules]") {
  CHECK_THROWS_WITH(LearnedFakeQuantize(LearnedFakeQuantizeOptions().grad_scale("paper")),
                    ContainsSubstring("got `paper`"));
  CHECK_THROWS_WITH(LearnedFakeQuantize(LearnedFakeQuantizeOptions().quant_min(1)), ContainsSubstring("quant_min 1"));
  CHECK_THROWS_WITH(LearnedFakeQuantize(LearnedFakeQuantizeOptions().quant_max(0)), ContainsSubstring("got 0"));
  CHECK_THROWS_WITH(Pact(PactOptions().quant_min(127)), ContainsSubstring("quant_min = quant_max = 127"));
  CHECK_THROWS_WITH(TrainedThreshold(TrainedThresholdOptions().quant_max(100)), ContainsSubstring("power of two"));
  CHECK_THROWS_WITH(TrainableRange(TrainableRangeOptions().quant_min(200)), ContainsSubstring("200 > quant_max 127"));
}

TEST_CASE("learned quantisers: their options are printed", "[quant][learned_modules]") {
  std::stringstream stream;
  stream << *make<Pact>(1) << *make<LearnedFakeQuantize>({});
  CHECK(stream.str() ==
        "torchslim::quant::Pact(quant_min=-8, quant_max=7, axis=1)"
        "torchslim::quant::LearnedFakeQuantize(quant_min=-8, quant_max=7, symmetric=false, grad_scale=numel)");
}
