// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/learned_activation.h>
#include <torchslim/quant/summary.h>

#include <string>

#include "cpp/catch.hpp"

namespace quant = torchslim::quant;
using quant::LearnedActivation;
using quant::LearnedActivationOptions;

namespace {

LearnedActivation fed(const std::string& quantizer, int64_t bits, const std::string& activation) {
  torch::manual_seed(0);
  LearnedActivation module(LearnedActivationOptions().quantizer(quantizer).bits(bits).activation(activation));
  module->forward(torch::randn({1000}));
  return module;
}

std::string refusal(const LearnedActivationOptions& options) {
  try {
    LearnedActivation module(options);
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("LearnedActivation: it is fake_quantize on the grid that it tells", "[quant][learned_activation]") {
  for (const std::string& name : LearnedActivationOptions::quantizers()) {
    for (const int64_t bits : {2, 4, 8}) {
      auto module = fed(name, bits, "relu6");
      module->eval();
      const at::Tensor x = 3 * torch::randn({100});
      const auto grid = module->grid();
      const auto zero_point = grid.zero_point.item<int64_t>();
      CHECK((-128 <= module->quant_min() && module->quant_min() <= zero_point));
      CHECK((zero_point <= module->quant_max() && module->quant_max() <= 127));
      const at::Tensor expected =
          quant::fake_quantize(at::relu6(x), grid.scale, grid.zero_point, module->quant_min(), module->quant_max());
      CHECK(at::equal(module->forward(x), expected));
    }
  }
}

TEST_CASE("LearnedActivation: its grid trains unless the observer is disabled", "[quant][learned_activation]") {
  for (const std::string& name : LearnedActivationOptions::quantizers()) {
    auto module = fed(name, 4, "relu");
    const at::Tensor x = 3 * torch::randn({100}).requires_grad_();
    module->enable_observer(false);
    module->forward(x).sum().backward();
    for (const at::Tensor& parameter : module->parameters()) {
      CHECK_FALSE(parameter.grad().defined());
    }
    module->enable_observer();
    module->forward(x).square().sum().backward();
    for (const at::Tensor& parameter : module->parameters()) {
      CHECK(parameter.grad().defined());
    }
  }
}

TEST_CASE("LearnedActivation: while it does not round each batch sets it anew", "[quant][learned_activation]") {
  LearnedActivation module(LearnedActivationOptions().quantizer("range"));
  CHECK_FALSE(module->has_grid());
  module->enable_fake_quant(false);
  const at::Tensor x = at::tensor({-1.0f, 2.0f});
  CHECK(at::equal(module->forward(x), x));
  module->forward(4 * x);
  CHECK(module->named_parameters()["learned.input_range"].item<float>() == 12);
  module->enable_fake_quant();
  module->forward(100 * x);
  CHECK(module->named_parameters()["learned.input_range"].item<float>() == 12);
  LearnedActivation fresh{LearnedActivationOptions()};
  fresh->eval();
  CHECK_THROWS_WITH(fresh->forward(x), ContainsSubstring("the grid has no values yet"));
}

TEST_CASE("LearnedActivation: wrong options are refused", "[quant][learned_activation]") {
  CHECK_THAT(refusal(LearnedActivationOptions().quantizer("lsqq")), ContainsSubstring("one of lsq, lsq+, pact"));
  CHECK_THAT(refusal(LearnedActivationOptions().activation("tanh")), ContainsSubstring("got `tanh`"));
  CHECK_THAT(refusal(LearnedActivationOptions().bits(9)), ContainsSubstring("bits must be in [1, 8], got 9"));
  CHECK_THAT(refusal(LearnedActivationOptions().quantizer("pact")), ContainsSubstring("only behind a ReLU"));
}

TEST_CASE("prepare: layers may hold learned quantisers", "[quant][learned_activation]") {
  struct NetImpl : torch::nn::Module {
    quant::Input input;
    quant::ConvBnAct2d conv{torch::nn::Conv2dOptions(3, 4, 3).bias(false)};
    NetImpl() {
      register_module("input", input);
      register_module("conv", conv);
    }
  };
  NetImpl net;
  quant::prepare(net, quant::PrepareOptions().bits(4).activation_quantizer("pact"));
  CHECK(net.conv->is_prepared());
  CHECK(net.conv->learned_activation()->options.quantizer() == "pact");
  CHECK(net.input->learned_activation().is_empty());
  CHECK_THROWS_WITH(net.conv->output_fake_quantize(), ContainsSubstring("`conv` is learned"));
  CHECK(net.named_parameters().contains("conv.conv.output_fake_quantize.learned.alpha"));
  net.conv(net.input(torch::randn({2, 3, 8, 8})));
  quant::disable_observer(net);
  CHECK(net.conv->learned_activation()->observer_enabled.item<int64_t>() == 0);
  CHECK(quant::summary(net).size() == 3);
}
