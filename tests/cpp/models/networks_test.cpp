// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/graph/capture.h>
#include <torchslim/models/blocks.h>
#include <torchslim/models/mobilenet_v1.h>
#include <torchslim/models/mobilenet_v2.h>
#include <torchslim/models/resnet.h>
#include <torchslim/models/weights.h>

#include "cpp/catch.hpp"
#include "temporary_file.h"

// That keys, initial weights, outputs and gradients are those of Python is tested in tests/python/models/test_parity.py.

namespace models = torchslim::models;
namespace quant = torchslim::quant;

namespace {

int64_t parameter_count(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) {
    count += parameter.numel();
  }
  return count;
}

models::MobileNetV1 student() {
  return models::MobileNetV1(
      models::MobileNetV1Options().in_channels(1).channels({16, 32, 64, 80, 80, 80}).strides({2, 1, 2, 1, 1, 1}));
}

models::ResNet teacher() {
  return models::ResNet(models::ResNetOptions()
                            .depth(8)
                            .in_channels(1)
                            .channels({64, 128})
                            .stem_channels(32)
                            .stem_kernel(5)
                            .stem_stride(2)
                            .downsample(models::Downsample::kPool));
}

}  // namespace

TEST_CASE("networks: parameter counts are those of the papers", "[models]") {
  CHECK(parameter_count(*models::MobileNetV1(models::MobileNetV1Options().num_classes(1000))) == 4'231'976);
  CHECK(parameter_count(*models::MobileNetV2(models::MobileNetV2Options().num_classes(1000))) == 3'504'872);
  CHECK(parameter_count(*models::ResNet()) == 272'474);
  CHECK(parameter_count(*student()) == 25'130);
  CHECK(parameter_count(*teacher()) == 464'106);
}

TEST_CASE("networks: channels are scaled to multiples of 8, at most 10 % below", "[models]") {
  CHECK(models::scale_channels(13, 1.0) == 13);
  CHECK(models::scale_channels(64, 0.75) == 48);
  CHECK(models::scale_channels(16, 0.25) == 8);
  CHECK(models::scale_channels(24, 0.45) == 16);  // 10.8: 8 would be 26 % below
}

TEST_CASE("networks: MobileNetV2 keeps detail of small images", "[models]") {
  for (const auto& [size, last_map] : {std::pair<int64_t, int64_t>{224, 7}, {96, 3}, {64, 4}, {28, 4}, {3, 3}}) {
    models::MobileNetV2 net(models::MobileNetV2Options().width(0.25).input_size(size).last_channels(16));
    const auto features = net->features->forward<quant::QuantTensor>(net->input(torch::zeros({1, 3, size, size})));
    CHECK(features.value.size(-1) == last_map);
  }
}

TEST_CASE("networks: weights are saved, loaded and run to the same logits, float and prepared", "[models]") {
  const TemporaryFile file;
  const at::Tensor images = torch::randn({2, 1, 28, 28});
  auto source = student();
  auto copy = student();
  for (const bool prepared : {false, true}) {
    if (prepared) {
      quant::prepare(*source);
      quant::prepare(*copy);
    }
    source->train();
    source->forward(images);
    source->eval();
    copy->eval();
    models::save_weights(*source, file.path);
    models::load_weights(*copy, file.path);
    CHECK(at::equal(copy->forward(images), source->forward(images)));
  }
}

TEST_CASE("networks: prepared ones are captured and lowered to the integers that eval computes", "[models]") {
  torch::manual_seed(0);
  auto v1 = student();
  models::MobileNetV2 v2(models::MobileNetV2Options().width(0.25).in_channels(1).input_size(28).last_channels(64));
  models::ResNet resnet(models::ResNetOptions().depth(8).in_channels(1));
  const auto largest_difference = [](auto& net) {
    const torch::NoGradGuard no_grad;
    const at::Tensor images = torch::rand({16, 1, 28, 28});
    quant::prepare(*net);
    for (int i = 0; i < 10; ++i) {
      net->forward(images);
    }
    net->eval();
    const auto integers = torchslim::deploy::lower(torchslim::graph::capture(net, images));
    const at::Tensor steps = torchslim::deploy::run_integer(integers, images).values - net->forward(images);
    return (steps / net->classifier->output_fake_quantize()->scale).abs().max().template item<float>();
  };
  // The integers' requantisation rounds a product of floats once more: a step here and there (docs/api/quant/convert.md).
  CHECK(largest_difference(v1) < 2.5);
  CHECK(largest_difference(v2) < 2.5);
  CHECK(largest_difference(resnet) < 2.5);
}

TEST_CASE("networks: a float network is cloned", "[models]") {
  auto net = teacher();
  net->eval();
  const auto copy = std::dynamic_pointer_cast<models::ResNetImpl>(net->clone());
  const at::Tensor images = torch::randn({1, 1, 28, 28});
  CHECK(at::equal(copy->forward(images), net->forward(images)));
}

TEST_CASE("networks: wrong options are refused with what was expected", "[models]") {
  CHECK_THROWS_WITH(models::MobileNetV1(models::MobileNetV1Options().channels({8})), ContainsSubstring("got 1 and 14"));
  CHECK_THROWS_WITH(models::MobileNetV1(models::MobileNetV1Options().width(0)),
                    ContainsSubstring("must be > 0, got 0"));
  CHECK_THROWS_WITH(models::MobileNetV2(models::MobileNetV2Options().input_size(2)),
                    ContainsSubstring("at least 3, got 2"));
  CHECK_THROWS_WITH(models::MobileNetV2(models::MobileNetV2Options().stages({})),
                    ContainsSubstring("at least one row"));
  CHECK_THROWS_WITH(models::ResNet(models::ResNetOptions().depth(21)),
                    ContainsSubstring("depths 8, 14, 20, ..., got 21"));
  CHECK_THROWS_WITH(models::ResNet(models::ResNetOptions().channels({})), ContainsSubstring("at least one stage"));
}
