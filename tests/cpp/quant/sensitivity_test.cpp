// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/models/mobilenet_v1.h>
#include <torchslim/quant/sensitivity.h>
#include <torchslim/quant/weight_grid.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

namespace {

torchslim::models::MobileNetV1 small_network() {
  at::manual_seed(0);
  return torchslim::models::MobileNetV1(
      torchslim::models::MobileNetV1Options().num_classes(3).in_channels(1).channels({4, 8}).strides({2, 1}));
}

}  // namespace

TEST_CASE("sensitivity: one layer at a time, and everything as it was", "[quant][sensitivity]") {
  auto network = small_network();
  std::map<std::string, at::Tensor> before;
  for (const auto& item : network->named_parameters()) {
    before[item.key()] = item.value().detach().clone();
  }
  std::vector<std::vector<std::string>> changed;
  const auto evaluate = [&](torch::nn::Module& module) {
    CHECK_FALSE(module.is_training());
    std::vector<std::string> names;
    double error = 0;
    for (const auto& item : module.named_parameters()) {
      if (!at::equal(item.value(), before[item.key()])) {
        names.push_back(item.key());
        error += (item.value() - before[item.key()]).square().sum().item<double>();
      }
    }
    changed.push_back(names);
    return error;
  };
  std::vector<int64_t> done;
  const auto options =
      SensitivityOptions().bits({2, 8}).higher_is_better(false).progress([&](int64_t d, int64_t total) {
        CHECK(total == 9);
        done.push_back(d);
      });
  const Sensitivity found = sensitivity(*network, evaluate, options);
  REQUIRE(found.layers.size() == 4);
  CHECK(done == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(changed[0].empty());
  for (size_t i = 0; i < 4; ++i) {
    CHECK(changed[1 + 2 * i] == std::vector<std::string>{found.layers[i].layer + ".weight"});
    CHECK(changed[2 + 2 * i] == std::vector<std::string>{found.layers[i].layer + ".weight"});
    CHECK(found.damage(i, 0) > found.damage(i, 1));
    const auto weight = before[found.layers[i].layer + ".weight"];
    const auto rounded = round_weight(weight, WeightGridOptions().bits(2)).weight;
    CHECK(found.layers[i].values[0] == Approx((rounded - weight).square().sum().item<double>()));
    CHECK(found.layers[i].weights == weight.numel());
    CHECK(found.layers[i].channels == weight.size(0));
  }
  CHECK(network->is_training());
  for (const auto& item : network->named_parameters()) {
    CHECK(at::equal(item.value(), before[item.key()]));
  }
  CHECK_THAT(to_string(found), ContainsSubstring("classifier"));
}

TEST_CASE("sensitivity: a prepared network runs in float meanwhile", "[quant][sensitivity]") {
  auto network = small_network();
  const auto images = at::randn({2, 1, 8, 8});
  network->eval();
  const auto expected = network->forward(images);
  network->train();
  prepare(*network);
  at::Tensor seen;
  sensitivity(
      *network,
      [&](torch::nn::Module&) {
        if (!seen.defined()) {
          seen = network->forward(images);
        }
        return 0.0;
      },
      SensitivityOptions().bits({8}));
  CHECK(at::allclose(seen, expected, 1e-4, 1e-5));
  for (const auto& module : network->modules()) {
    if (const auto* quantizer = module->as<FakeQuantizeImpl>()) {
      CHECK(quantizer->fake_quant_enabled.item<bool>());
    }
  }
}

TEST_CASE("sensitivity: NaN is refused by the layer, and everything is as it was", "[quant][sensitivity]") {
  auto network = small_network();
  const auto weight = network->named_parameters()["classifier.weight"];
  const auto before = weight.detach().clone();
  const auto evaluate = [&](torch::nn::Module&) { return at::equal(weight, before) ? 1.0 : NAN; };
  CHECK_THROWS_WITH(sensitivity(*network, evaluate, SensitivityOptions().bits({4})),
                    ContainsSubstring("with layer `classifier` of 4 bits"));
  CHECK(at::equal(weight, before));
  CHECK(network->is_training());
  CHECK_THROWS_WITH(sensitivity(*network, [](torch::nn::Module&) { return NAN; }),
                    ContainsSubstring("with all layers in float"));
  CHECK_THROWS_WITH(sensitivity(*network, evaluate, SensitivityOptions().bits({9})),
                    ContainsSubstring("torchslim::sensitivity: bits must be"));
}
