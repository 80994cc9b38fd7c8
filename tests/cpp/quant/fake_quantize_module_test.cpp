// SPDX-License-Identifier: BSD-3-Clause
#include <torch/csrc/jit/frontend/tracer.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_group.h>
#include <torchslim/quant/fake_quantize_module.h>

#include <limits>
#include <sstream>

#include "cpp/catch.hpp"

using torchslim::quant::FakeQuantize;
using torchslim::quant::FakeQuantizeImpl;
using torchslim::quant::FakeQuantizeOptions;

namespace {

at::Tensor on_its_grid(const FakeQuantize& module, const at::Tensor& x) {
  return torchslim::quant::fake_quantize(x, module->scale, module->zero_point, module->quant_min(), module->quant_max(),
                                         module->options.axis());
}

}  // namespace

TEST_CASE("FakeQuantize: training moves the grid, eval freezes it", "[quant][FakeQuantize]") {
  FakeQuantize module(FakeQuantizeOptions().activation("relu"));
  const auto x = at::randn({4, 100});
  const auto y = module->forward(x);
  CHECK(at::equal(y, on_its_grid(module, x.relu())));
  CHECK(module->max_val.item<float>() == x.max().item<float>());
  const auto scale = module->scale.clone();
  module->eval();
  module->forward(x * 10);
  CHECK(at::equal(module->scale, scale));
  module->train();
  module->disable_observer();
  module->forward(x * 10);
  CHECK(at::equal(module->scale, scale));
  module->enable_observer();
  module->forward(x * 10);
  CHECK(module->scale.item<float>() > scale.item<float>());
  CHECK(at::equal(module->calculate_qparams().scale, module->scale));
}

TEST_CASE("FakeQuantize: a large tensor has the range of its elements", "[quant][FakeQuantize]") {
  at::set_num_threads(GENERATE(1, 2));
  FakeQuantize module;
  const auto x = at::rand({300000}) + 3;
  const bool negative = GENERATE(false, true);
  const auto seen = negative ? -x : x;
  module->forward(seen);
  CHECK(module->min_val.item<float>() == seen.min().item<float>());
  CHECK(module->max_val.item<float>() == seen.max().item<float>());
}

TEST_CASE("FakeQuantize: without fake-quantise it observes and passes the activation", "[quant][FakeQuantize]") {
  FakeQuantize module(FakeQuantizeOptions().activation("relu6"));
  module->disable_fake_quant();
  const auto x = at::randn({100}).requires_grad_();
  const auto y = module->forward(x);
  CHECK(at::equal(y, at::relu6(x)));
  CHECK(y.requires_grad());
  CHECK(module->max_val.item<float>() == at::relu6(x).max().item<float>());
}

TEST_CASE("FakeQuantize: one grid for each channel", "[quant][FakeQuantize]") {
  FakeQuantize module(FakeQuantizeOptions().axis(0).symmetric(true));
  const auto weight = at::randn({3, 8});
  const auto y = module->forward(weight);
  CHECK(module->scale.sizes() == at::IntArrayRef({3}));
  CHECK(at::equal(y, on_its_grid(module, weight)));
  CHECK(at::equal(module->scale, torchslim::quant::weight_qparams(weight).scale));
}

TEST_CASE("FakeQuantize: a first tensor that is refused leaves the channels uncounted", "[quant][FakeQuantize]") {
  const std::string observer = GENERATE("moving_average", "min_max", "mse");
  const bool rounds = GENERATE(true, false);
  FakeQuantize module(FakeQuantizeOptions().observer(observer).axis(-1));
  module->enable_fake_quant(rounds);
  CHECK_THROWS_WITH(module->forward(at::full({2, 5}, std::numeric_limits<float>::quiet_NaN())),
                    ContainsSubstring("NaN or infinity"));
  for (const auto& buffer : {module->min_val, module->max_val, module->scale, module->zero_point}) {
    CHECK(buffer.numel() == 0);
  }
  const auto x = at::randn({2, 3}).requires_grad_();
  const auto y = module->forward(x);
  CHECK(module->scale.sizes() == at::IntArrayRef({3}));
  CHECK(at::equal(y, rounds ? on_its_grid(module, x) : x));
  CHECK_FALSE(module->scale.requires_grad());
}

TEST_CASE("FakeQuantize: NaN and infinity are left out where it is told to skip them", "[quant][FakeQuantize]") {
  const std::string observer = GENERATE("moving_average", "min_max", "histogram");
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(1));
  const auto options = FakeQuantizeOptions().observer(observer).axis(axis);
  const auto good = at::randn({50, 3});
  const auto bad = at::full({2, 3}, std::numeric_limits<float>::quiet_NaN());
  bad[1].fill_(std::numeric_limits<float>::infinity());
  const auto x = at::cat({good, bad}).requires_grad_();
  CHECK_THROWS_WITH(FakeQuantize(options)->forward(x), ContainsSubstring("NaN or infinity"));
  FakeQuantize module(FakeQuantizeOptions(options).non_finite("skip"));
  FakeQuantize reference(options);
  const auto y = module->forward(x);
  CHECK(at::equal(y.slice(0, 0, 50), reference->forward(good)));
  CHECK(y[50].isnan().all().item<bool>());
  CHECK(at::equal(module->scale, reference->scale));
  CHECK(at::equal(module->zero_point, reference->zero_point));
  CHECK(module->named_buffers().contains("observer.min_val"));
  module->forward(good * 2);
  reference->forward(good * 2);
  CHECK(at::equal(module->min_val, reference->min_val));
  std::stringstream stream;
  torch::save(module, stream);
  FakeQuantize loaded(module->options);
  torch::load(loaded, stream);
  CHECK(at::equal(loaded->named_buffers()["observer.max_val"], module->named_buffers()["observer.max_val"]));
  std::stringstream text;
  text << *module;
  CHECK(text.str().find("non_finite=skip") != std::string::npos);
}

TEST_CASE("FakeQuantize: saved, loaded and cloned state", "[quant][FakeQuantize]") {
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(1));
  const auto options = FakeQuantizeOptions().axis(axis);
  FakeQuantize module(options);
  const auto x = at::randn({3, 8});
  module->forward(x);
  module->eval();
  std::stringstream stream;
  torch::save(module, stream);
  FakeQuantize loaded(options);
  torch::load(loaded, stream);
  loaded->eval();
  CHECK(at::equal(loaded->forward(x), module->forward(x)));
  CHECK(at::equal(loaded->named_buffers()["scale"], module->scale));
  const auto twin = std::dynamic_pointer_cast<FakeQuantizeImpl>(module->clone());
  CHECK(at::equal(twin->forward(x), module->forward(x)));
  twin->train();
  twin->forward(x * 10);
  CHECK_FALSE(at::equal(twin->scale, module->scale));
}

TEST_CASE("FakeQuantize: a trace holds the activation and one node that reads the buffers", "[quant][FakeQuantize]") {
  FakeQuantize module(FakeQuantizeOptions().activation("relu"));
  module->forward(at::randn({10}));
  const auto traced = torch::jit::tracer::trace(
      {at::randn({4})},
      [&](torch::jit::Stack inputs) -> torch::jit::Stack { return {module->forward(inputs[0].toTensor())}; },
      [](const at::Tensor&) { return ""; });
  std::vector<std::string> kinds;
  for (const auto* node : traced.first->graph->nodes()) {
    if (!node->kind().is_prim()) {
      kinds.push_back(node->kind().toQualString());
    }
  }
  CHECK(kinds == std::vector<std::string>{"aten::relu", "torchslim::fake_quantize"});
}

TEST_CASE("FakeQuantize: bad options are refused", "[quant][FakeQuantize]") {
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().observer("median")), ContainsSubstring("got `median`"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().bits(17)), ContainsSubstring("bits must be in [1, 16], got 17"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().bits(0)), ContainsSubstring("bits must be in [1, 16], got 0"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().bits(1).symmetric(true)), ContainsSubstring("has one point"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().group_size(2)), ContainsSubstring("needs `axis`"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().activation("gelu")), ContainsSubstring("got `gelu`"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().activation("relu").axis(1)), ContainsSubstring("axis 1"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().non_finite("drop")),
                    ContainsSubstring("FakeQuantize: non_finite must be `refuse` or `skip`, got `drop`"));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().averaging_constant(0)), ContainsSubstring("(0, 1], got 0"));
  CHECK_THROWS_AS(FakeQuantize()->calculate_qparams(), c10::ValueError);
}

TEST_CASE("FakeQuantize: one bit has two levels", "[quant][FakeQuantize]") {
  FakeQuantize quantizer(FakeQuantizeOptions().bits(1));
  const auto y = quantizer->forward(at::tensor({-1.0f, -0.4f, -0.6f, 0.0f}));
  CHECK(at::equal(y, at::tensor({-1.0f, 0.0f, -1.0f, 0.0f})));
}

TEST_CASE("FakeQuantize: groups have grids of their own, and are part of the state", "[quant][FakeQuantize]") {
  const std::string name = GENERATE("moving_average", "min_max", "histogram", "mse");
  const auto options = FakeQuantizeOptions().observer(name).bits(4).axis(1).group_size(3);
  FakeQuantize quantizer(options);
  const auto x = at::randn({4, 6}).requires_grad_();
  const auto y = quantizer->forward(x);
  CHECK(quantizer->scale.sizes() == at::IntArrayRef{4, 2});
  CHECK(at::equal(y, torchslim::quant::fake_quantize_group(x, quantizer->scale, quantizer->zero_point, -8, 7, 3, 1)));
  CHECK(torch::autograd::grad({y.sum()}, {x})[0].sum().item<float>() > 0);
  std::stringstream file;
  torch::save(quantizer, file);
  FakeQuantize loaded(options);
  torch::load(loaded, file);
  loaded->eval();
  CHECK(at::equal(loaded->forward(x), y));
  CHECK_THROWS_WITH(FakeQuantize(FakeQuantizeOptions().axis(1).group_size(4))->forward(x),
                    ContainsSubstring("must divide dimension 1 of size 6, got 4"));
}

TEST_CASE("FakeQuantize: an observer with a histogram cuts outliers, and is part of the state", "[quant]") {
  const std::string name = GENERATE("histogram", "percentile", "mse", "entropy");
  const auto options = FakeQuantizeOptions().observer(name).bits(4).activation("relu").percentile(99.9);
  FakeQuantize quantizer(options);
  const auto x = at::cat({at::randn({20000}), at::tensor({60.0f})}).requires_grad_();
  const auto y = quantizer->forward(x);
  CHECK(quantizer->max_val.item<float>() < 20);
  CHECK(quantizer->scale.item<float>() < 1.5);
  CHECK(at::equal(quantizer->calculate_qparams().scale, quantizer->scale));
  CHECK(at::equal(y, torchslim::quant::fake_quantize(at::relu(x), quantizer->scale, quantizer->zero_point, -8, 7)));
  CHECK(torch::autograd::grad({y.sum()}, {x})[0].sum().item<float>() > 0);
  std::stringstream file;
  torch::save(quantizer, file);
  FakeQuantize loaded(options);
  torch::load(loaded, file);
  CHECK(loaded->named_buffers()["observer.histogram"].sum().item<int64_t>() == 20001);
  const auto copy = std::dynamic_pointer_cast<FakeQuantizeImpl>(loaded->clone());
  copy->forward(x);
  CHECK(copy->named_buffers()["observer.histogram"].sum().item<int64_t>() == 40002);
  CHECK(loaded->named_buffers()["observer.histogram"].sum().item<int64_t>() == 20001);
  loaded->eval();
  const auto before = loaded->scale.clone();
  loaded->forward(x * 100);
  CHECK(at::equal(loaded->scale, before));
}

TEST_CASE("FakeQuantize: an observer with a histogram per channel", "[quant]") {
  FakeQuantize quantizer(FakeQuantizeOptions().observer("mse").axis(1).symmetric(true));
  const auto x = at::randn({300, 3}) * at::tensor({1.0f, 10.0f, 0.0f});
  quantizer->forward(x);
  CHECK(quantizer->scale.sizes() == at::IntArrayRef({3}));
  CHECK(quantizer->scale[2].item<float>() == 1);
  CHECK((quantizer->scale[1] > 5 * quantizer->scale[0]).item<bool>());
}

TEST_CASE("FakeQuantize: a first tensor that is refused leaves no trace", "[quant]") {
  const std::string observer = GENERATE("moving_average", "min_max", "histogram");
  FakeQuantize quantizer(FakeQuantizeOptions().observer(observer).axis(1));
  const auto broken = at::full({2, 3}, std::numeric_limits<double>::quiet_NaN());
  CHECK_THROWS_WITH(quantizer->forward(broken), ContainsSubstring("NaN or infinity"));
  CHECK(quantizer->min_val.numel() == 0);
  CHECK(quantizer->forward(at::randn({2, 5})).sizes() == at::IntArrayRef({2, 5}));
}
