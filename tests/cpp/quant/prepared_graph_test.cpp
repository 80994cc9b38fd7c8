// SPDX-License-Identifier: BSD-3-Clause
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/optim/sgd.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/graph/capture.h>
#include <torchslim/models/mobilenet_v2.h>
#include <torchslim/quant/apply_adaround.h>
#include <torchslim/quant/apply_gptq.h>
#include <torchslim/quant/calibrate.h>
#include <torchslim/quant/correct_bias.h>
#include <torchslim/quant/prepared_graph.h>
#include <torchslim/quant/quantization_schedule.h>
#include <torchslim/quant/reestimate_batch_norm.h>
#include <torchslim/quant/sensitivity.h>
#include <torchslim/quant/summary.h>

#include <algorithm>
#include <set>

#include "cpp/catch.hpp"

namespace deploy = torchslim::deploy;
namespace graph = torchslim::graph;
namespace quant = torchslim::quant;

namespace {

/// Plain LibTorch layers and functions: a residual sum, a squeeze-excite product, a concatenation, a batch norm alone, a
/// dropout, and an instance norm, which has no integer form.
struct PlainNetImpl : torch::nn::Module {
  torch::nn::Conv2d stem{torch::nn::Conv2dOptions(3, 8, 3).padding(1).bias(false)};
  torch::nn::BatchNorm2d stem_norm{8};
  torch::nn::Conv2d depthwise{torch::nn::Conv2dOptions(8, 8, 3).padding(1).groups(8)};
  torch::nn::Linear squeeze{8, 8};
  torch::nn::BatchNorm2d alone{16};
  torch::nn::InstanceNorm2d instance{torch::nn::InstanceNorm2dOptions(16).affine(true)};
  torch::nn::Dropout dropout{0.5};
  torch::nn::Linear classifier{16, 5};

  PlainNetImpl() {
    register_module("stem", stem);
    register_module("stem_norm", stem_norm);
    register_module("depthwise", depthwise);
    register_module("squeeze", squeeze);
    register_module("alone", alone);
    register_module("instance", instance);
    register_module("dropout", dropout);
    register_module("classifier", classifier);
  }
  at::Tensor forward(at::Tensor x) {
    x = torch::relu(stem_norm(stem(x)));
    const at::Tensor y = torch::hardswish(depthwise(x) + x);
    const at::Tensor factor = torch::sigmoid(squeeze(y.mean({2, 3}))).unsqueeze(2).unsqueeze(3);
    x = alone(torch::cat({x * factor, torch::max_pool2d(y, 3, 1, 1)}, 1));
    x = torch::relu(instance(torch::relu6(x)));
    return classifier(dropout(torch::adaptive_avg_pool2d(x, {1, 1}).flatten(1)));
  }
};
TORCH_MODULE(PlainNet);

at::Tensor images(int64_t batch = 4) {
  torch::manual_seed(1);
  return torch::randn({batch, 3, 8, 8});
}

PlainNet plain_net() {
  torch::manual_seed(0);
  PlainNet net;
  for (int i = 0; i < 3; ++i) {
    net->forward(images());  // statistics of its own
  }
  return net;
}

void train_a_step(quant::PreparedGraph& prepared) {
  torch::optim::SGD optimizer(prepared->parameters(), 1e-3);
  for (int i = 0; i < 3; ++i) {
    optimizer.zero_grad();
    prepared->forward(images()).square().mean().backward();
    optimizer.step();
  }
}

std::set<std::string> quantizers(const torch::nn::Module& module) {
  std::set<std::string> names;
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    if (item.value()->as<quant::FakeQuantizeImpl>() != nullptr) {
      names.insert(item.key());
    }
  }
  return names;
}

template <typename Model>
void check_integers_are_those_of_eval(Model& prepared) {
  prepared->eval();
  const torch::NoGradGuard no_grad;
  const deploy::IntegerGraph integers = deploy::lower(graph::capture(prepared, images(1)));
  const at::Tensor x = images(5);
  CHECK(torch::equal(deploy::run_integer(integers, x).values, prepared->forward(x)));
}

}  // namespace

TEST_CASE("a captured network trains, and its integers are those of eval", "[quant][prepared_graph]") {
  PlainNet net = plain_net();
  quant::PreparedGraph prepared = quant::prepare(net, images(1));
  CHECK(quantizers(*prepared) ==
        std::set<std::string>{"input_fake_quantize", "stem.output_fake_quantize", "depthwise.output_fake_quantize",
                              "add_fake_quantize", "hardswish_fake_quantize", "squeeze.output_fake_quantize",
                              "sigmoid_fake_quantize", "mul_fake_quantize", "concat_fake_quantize",
                              "alone_fake_quantize", "border_fake_quantize", "classifier.output_fake_quantize"});
  CHECK(prepared->float_layers() == std::vector<std::string>{"instance"});
  CHECK(quant::float_layers(*prepared) == prepared->float_layers());
  train_a_step(prepared);
  for (const auto& item : prepared->named_parameters()) {
    INFO(item.key());
    CHECK((item.value().grad().defined() && item.value().grad().isfinite().all().item<bool>()));
  }
  check_integers_are_those_of_eval(prepared);
}

TEST_CASE("it has the captured module's own parameters and statistics", "[quant][prepared_graph]") {
  PlainNet net = plain_net();
  const quant::PreparedGraph prepared = quant::prepare(net, images(1));
  const auto theirs = net->named_parameters();
  CHECK(prepared->named_parameters().size() == theirs.size());
  for (const auto& item : prepared->named_parameters()) {
    INFO(item.key());
    CHECK(item.value().is_same(theirs[item.key()]));
  }
  const auto buffers = prepared->named_buffers();
  for (const auto& item : net->named_buffers()) {
    INFO(item.key());
    CHECK(buffers[item.key()].is_same(item.value()));
  }
}

TEST_CASE("without rounding it computes what the module does", "[quant][prepared_graph]") {
  PlainNet net = plain_net();
  net->eval();
  quant::PreparedGraph prepared = quant::prepare(net, images(1));
  CHECK_FALSE(prepared->is_training());
  const at::Tensor expected = net->forward(images());
  quant::disable_fake_quant(*prepared);
  CHECK(torch::allclose(prepared->forward(images()), expected, 1e-4, 1e-5));
  SECTION("in training, dropout drops and statistics move") {
    prepared->train();
    const at::Tensor before = net->stem_norm->running_mean.clone();
    const at::Tensor x = images();  // seeds the generator
    CHECK_FALSE(torch::equal(prepared->forward(x), prepared->forward(x)));
    CHECK_FALSE(torch::equal(before, net->stem_norm->running_mean));
    CHECK(net->stem_norm->num_batches_tracked.item<int64_t>() == 5);
  }
  SECTION("frozen statistics stand still") {
    quant::freeze_batch_norm(*prepared);
    prepared->train();
    const at::Tensor before = net->stem_norm->running_mean.clone();
    prepared->forward(images());
    CHECK(torch::equal(before, net->stem_norm->running_mean));
  }
}

TEST_CASE("a model of the library and its drop-in layers train alike", "[quant][prepared_graph]") {
  torch::manual_seed(0);
  const auto options = torchslim::models::MobileNetV2Options().num_classes(4).width(0.25);
  torchslim::models::MobileNetV2 net(options);
  torch::manual_seed(0);
  torchslim::models::MobileNetV2 dropped_in(options);
  const at::Tensor x = torch::randn({4, 3, 32, 32});
  quant::PreparedGraph prepared = quant::prepare(net, x);
  quant::prepare(*dropped_in);
  for (int i = 0; i < 2; ++i) {
    const at::Tensor ours = prepared->forward(x);
    const at::Tensor theirs = dropped_in->forward(x);
    CHECK(torch::equal(ours, theirs));
    ours.square().mean().backward();
    theirs.square().mean().backward();
  }
  CHECK(torch::equal(net->classifier->weight.grad(), dropped_in->classifier->weight.grad()));
  prepared->eval();
  dropped_in->eval();
  CHECK(torch::equal(prepared->forward(x), dropped_in->forward(x)));
}

TEST_CASE("settings by name and by kind", "[quant][prepared_graph]") {
  PlainNet net = plain_net();
  const auto options = quant::PrepareOptions()
                           .kind("conv", quant::LayerOptions().weight_bits(4))
                           .layer("stem", quant::LayerOptions().weight_bits(2))
                           .layer("classifier", quant::LayerOptions().to_float(true))
                           .layer("add_fake_quantize", quant::LayerOptions().bits(6));
  quant::PreparedGraph prepared = quant::prepare(net, images(1), options);
  CHECK(prepared->float_layers() == std::vector<std::string>{"instance", "classifier"});
  const auto children = prepared->named_modules("", /*include_self=*/false);
  CHECK(children["stem.weight_fake_quantize"]->as<quant::WeightQuantizerImpl>()->options.width() == 2);
  CHECK(children["depthwise.weight_fake_quantize"]->as<quant::WeightQuantizerImpl>()->options.width() == 4);
  CHECK(children["add_fake_quantize"]->as<quant::FakeQuantizeImpl>()->quant_max() == 31);
  CHECK(prepared->named_buffers().contains("quantization_config"));
  train_a_step(prepared);
  prepared->eval();
  const torch::NoGradGuard no_grad;
  const deploy::IntegerGraph integers = deploy::lower(graph::capture(prepared, images(1)));
  const at::Tensor x = images(5);  // ends in floats, whose sums depend on how a batch is divided
  CHECK(torch::allclose(deploy::run_integer(integers, x).values, prepared->forward(x), 1e-5, 1e-6));
}

TEST_CASE("a layer that is used twice has a grid for each use", "[quant][prepared_graph]") {
  torch::manual_seed(0);
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(3, 3, 3).padding(1));
  struct Twice : torch::nn::Module {
    explicit Twice(const torch::nn::Conv2d& conv) : conv(register_module("conv", conv)) {}
    at::Tensor forward(at::Tensor x) { return conv(torch::relu(conv(x))); }
    torch::nn::Conv2d conv;
  };
  const auto net = std::make_shared<Twice>(conv);
  quant::PreparedGraph prepared = quant::prepare(net, images(1));
  CHECK(prepared->parameters().size() == 2);
  CHECK(quantizers(*prepared) ==
        std::set<std::string>{"input_fake_quantize", "conv.output_fake_quantize", "conv_again.output_fake_quantize"});
  train_a_step(prepared);
  check_integers_are_those_of_eval(prepared);
}

TEST_CASE("lengths, transposed convolutions and linear layers with a batch norm", "[quant][prepared_graph]") {
  struct Net : torch::nn::Module {
    torch::nn::Conv1d along{torch::nn::Conv1dOptions(3, 6, 3).stride(2).groups(3)};
    torch::nn::BatchNorm1d along_norm{6};
    torch::nn::ConvTranspose2d wider{torch::nn::ConvTranspose2dOptions(6, 4, 2).stride(2).groups(2).bias(false)};
    torch::nn::BatchNorm2d wider_norm{4};
    torch::nn::Linear linear{4, 5};
    torch::nn::BatchNorm1d linear_norm{5};
    Net() {
      register_module("along", along);
      register_module("along_norm", along_norm);
      register_module("wider", wider);
      register_module("wider_norm", wider_norm);
      register_module("linear", linear);
      register_module("linear_norm", linear_norm);
    }
    at::Tensor forward(at::Tensor x) {
      x = torch::relu(along_norm(along(x.flatten(2))));
      x = torch::relu(wider_norm(wider(x.unsqueeze(2))));
      return torch::relu(linear_norm(linear(torch::adaptive_avg_pool2d(x, {1, 1}).flatten(1))));
    }
  };
  torch::manual_seed(0);
  const auto net = std::make_shared<Net>();
  quant::PreparedGraph prepared = quant::prepare(net, images(1));
  CHECK(prepared->float_layers().empty());
  CHECK(prepared->named_parameters()["wider.weight"].is_same(net->wider->weight));
  CHECK(quantizers(*prepared) == std::set<std::string>{"input_fake_quantize", "along.output_fake_quantize",
                                                       "wider.output_fake_quantize", "linear.output_fake_quantize"});
  train_a_step(prepared);
  CHECK(net->wider->weight.grad().abs().max().item<float>() > 0);
  check_integers_are_those_of_eval(prepared);
  CHECK_THROWS_WITH(quant::apply_gptq(prepared, quant::Batches({images(4)}), quant::GptqOptions().bits(4)),
                    ContainsSubstring("layer `wider` is a transposed convolution"));
}

TEST_CASE("methods for trained models take it", "[quant][prepared_graph]") {
  PlainNet net = plain_net();
  net->eval();
  quant::PreparedGraph prepared = quant::prepare(net, images(1), quant::PrepareOptions().weight_bits(4));
  const quant::Batches batches({images(8)});
  quant::calibrate(prepared, batches);
  quant::reestimate_batch_norm(prepared, batches);
  quant::calibrate(prepared, batches);
  SECTION("bias correction") { quant::correct_bias(prepared, batches); }
  SECTION("gptq") { quant::apply_gptq(prepared, batches, quant::GptqOptions().bits(4)); }
  SECTION("adaround") { quant::apply_adaround(prepared, batches, quant::AdaroundOptions().bits(4).iterations(50)); }
  SECTION("summary") {
    const std::string table = quant::to_string(quant::summary(*prepared));
    CHECK(table.find("depthwise") != std::string::npos);
  }
  SECTION("sensitivity") {
    const auto found = quant::sensitivity(*prepared, [](torch::nn::Module&) { return 0.5; });
    CHECK(found.layers.size() == 4);
  }
  check_integers_are_those_of_eval(prepared);
}

TEST_CASE("prepare of a captured module refuses what it cannot do", "[quant][prepared_graph]") {
  PlainNet net = plain_net();
  const auto message = [&](const quant::PrepareOptions& options) -> std::string {
    try {
      quant::prepare(net, images(1), options);
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "";
  };
  CHECK(message(quant::PrepareOptions().layer("stam", {})).find("there is no layer `stam`") != std::string::npos);
  CHECK(message(quant::PrepareOptions().kind("convolution", {})).find("there is no kind `convolution`") !=
        std::string::npos);
  CHECK(message(quant::PrepareOptions().layer("stem", quant::LayerOptions().to_float(true).bits(4)))
            .find("cannot be in float and have bits") != std::string::npos);
  quant::PreparedGraph prepared = quant::prepare(net, images(1));
  prepared->forward(images());
  CHECK_THROWS_WITH(quant::prepare(prepared, images(1)), ContainsSubstring("holds quantisers already"));
  CHECK_THROWS_WITH(prepared->forward(torch::zeros({1, 3, 9, 9})), ContainsSubstring("as captured with"));
}
