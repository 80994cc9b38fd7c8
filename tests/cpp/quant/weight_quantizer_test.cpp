// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/graph/capture.h>
#include <torchslim/models/weights.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/weight_grid.h>
#include <torchslim/quant/weight_quantizer.h>

#include <filesystem>
#include <set>
#include <string>

#include "cpp/catch.hpp"

namespace quant = torchslim::quant;
using quant::LayerOptions;
using quant::PrepareOptions;
using quant::WeightQuantizer;
using quant::WeightQuantizerOptions;

namespace {

struct NetImpl : torch::nn::Module {
  quant::Input input;
  quant::ConvBnAct2d first{torch::nn::Conv2dOptions(3, 8, 3).padding(1).bias(false)};
  quant::ConvBnAct2d second{torch::nn::Conv2dOptions(8, 8, 3).padding(1).bias(false)};
  quant::Add add{quant::Activation::kRelu};
  quant::GlobalAvgPool2d pool;
  quant::Flatten flatten;
  quant::Linear classifier{8, 5};

  NetImpl() {
    register_module("input", input);
    register_module("first", first);
    register_module("second", second);
    register_module("add", add);
    register_module("classifier", classifier);
  }
  at::Tensor forward(const at::Tensor& images) {
    const quant::QuantTensor x = first(input(images));
    return classifier(flatten(pool(add(second(x), x)))).value;
  }
};
TORCH_MODULE(Net);

at::Tensor images() { return torch::randn({8, 3, 10, 10}); }

Net watched(const PrepareOptions& options) {
  torch::manual_seed(0);
  Net net;
  quant::prepare(*net, options);
  for (int i = 0; i < 20; ++i) {
    net->forward(images());
  }
  torch::optim::SGD optimizer(net->parameters(), 0.01);
  net->forward(images()).square().mean().backward();
  optimizer.step();
  const at::NoGradGuard no_grad;
  for (int i = 0; i < 20; ++i) {
    net->forward(images());
  }
  return net;
}

std::set<std::string> keys(const torch::nn::Module& module) {
  std::set<std::string> names;
  for (const auto& item : module.named_parameters()) {
    names.insert(item.key());
  }
  for (const auto& item : module.named_buffers()) {
    names.insert(item.key());
  }
  return names;
}

/// The largest difference between the integers and eval, in steps of the output.
double steps_between(Net& net) {
  const at::NoGradGuard no_grad;
  net->eval();
  const auto captured = torchslim::graph::capture(*net, [&](const at::Tensor& x) { return net->forward(x); }, images());
  const auto integers = torchslim::deploy::lower(captured);
  const at::Tensor x = images();
  const at::Tensor difference = torchslim::deploy::run_integer(integers, x).values - net->forward(x);
  return difference.abs().max().item<double>() / integers.nodes.back().scale;
}

}  // namespace

TEST_CASE("WeightQuantizer: codes times scale is the rounded weight", "[quant][weight_quantizer]") {
  torch::manual_seed(1);
  at::Tensor weight = torch::randn({6, 3, 3, 3});
  weight[5].zero_();
  for (const std::string name : {"fake_quantize", "lsq", "binary", "ternary"}) {
    WeightQuantizer quantizer(WeightQuantizerOptions().quantizer(name), weight);
    const auto rounded = quantizer->forward(weight);
    const auto integers = quantizer->quantize(weight);
    CHECK(at::equal(quant::dequantize_weight(integers.codes, integers.scale), rounded.weight));
    CHECK(at::equal(integers.scale, rounded.scale));
    CHECK(integers.codes.abs().max().item<int64_t>() <= quantizer->options.largest_code());
  }
  for (int64_t bits = 2; bits <= 8; ++bits) {
    for (const std::string search : {"absmax", "mse"}) {
      WeightQuantizer quantizer(WeightQuantizerOptions().bits(bits).scale_search(search), weight);
      const auto expected = quant::round_weight(weight, quant::WeightGridOptions().bits(bits).scale_search(search));
      CHECK(at::equal(quantizer->forward(weight).weight, expected.weight));
    }
  }
}

TEST_CASE("WeightQuantizer: levels and floats have no codes", "[quant][weight_quantizer]") {
  const at::Tensor weight = torch::randn({4, 9});
  for (const std::string name : {"apot", "power_of_two", "float8_e4m3", "float8_e5m2", "float16", "bfloat16"}) {
    WeightQuantizer quantizer(WeightQuantizerOptions().quantizer(name), weight);
    const auto rounded = quantizer->forward(weight);
    CHECK_FALSE(rounded.scale.defined());
    CHECK(at::equal(quantizer->traced(weight), rounded.weight));
    CHECK_THROWS_WITH(quantizer->quantize(weight), ContainsSubstring("gives no integer codes"));
    CHECK_THROWS_WITH(quantizer->freeze(at::ones({4})), ContainsSubstring("has no grid to freeze"));
  }
}

TEST_CASE("WeightQuantizer: a frozen grid stays", "[quant][weight_quantizer]") {
  const at::Tensor weight = torch::randn({4, 9});
  WeightQuantizer quantizer(WeightQuantizerOptions().quantizer("lsq").bits(4), weight);
  CHECK(keys(*quantizer) == std::set<std::string>{"scale"});
  quantizer->freeze(at::full({4}, 0.25f));
  CHECK(quantizer->parameters().empty());
  CHECK(at::equal(quantizer->forward(weight).weight, (weight / 0.25).round().clamp(-7, 7) * 0.25));
  CHECK_THROWS_WITH(quantizer->freeze(at::zeros({4})), ContainsSubstring("must be > 0"));
  CHECK_THROWS_WITH(quantizer->freeze(at::ones({2, 2})), ContainsSubstring("of shape (out_channels)"));
}

TEST_CASE("WeightQuantizer: options that make no sense are refused", "[quant][weight_quantizer]") {
  const at::Tensor weight = at::ones({2, 2});
  const auto refusal = [&](const WeightQuantizerOptions& options) {
    try {
      WeightQuantizer quantizer(options, weight);
    } catch (const c10::ValueError& error) {
      return std::string(error.what_without_backtrace());
    }
    return std::string("nothing");
  };
  CHECK_THAT(refusal(WeightQuantizerOptions().quantizer("int8")),
             ContainsSubstring("must be one of fake_quantize, lsq"));
  CHECK_THAT(refusal(WeightQuantizerOptions().bits(9)), ContainsSubstring("takes 2 to 8 bits, got 9"));
  CHECK_THAT(refusal(WeightQuantizerOptions().bits(1)), ContainsSubstring("1 bit is `binary`"));
  CHECK_THAT(refusal(WeightQuantizerOptions().quantizer("ternary").bits(4)), ContainsSubstring("has 2 bits, got 4"));
  CHECK_THAT(refusal(WeightQuantizerOptions().quantizer("apot").scale_search("mse")), ContainsSubstring("goes with"));
}

TEST_CASE("prepare: the default adds no weight quantiser, others add theirs", "[quant][weight_quantizer]") {
  Net plain;
  quant::prepare(*plain, PrepareOptions().bits(8).weight_quantizer("fake_quantize"));
  for (const std::string& key : keys(*plain)) {
    CHECK_THAT(key, !ContainsSubstring("weight_fake_quantize"));
  }
  Net net;
  quant::prepare(*net, PrepareOptions()
                           .bits(4)
                           .weight_quantizer("lsq")
                           .layer("first", LayerOptions().weight_quantizer("binary"))
                           .layer("second.conv", LayerOptions().weight_bits(2).activation_bits(6))
                           .layer("add", LayerOptions().symmetric(true))
                           .layer("classifier", LayerOptions().bits(8)));
  CHECK(keys(*net).count("second.conv.weight_fake_quantize.scale") == 1);
  CHECK(net->first->weight_fake_quantize()->options.width() == 1);
  CHECK(net->second->weight_fake_quantize()->options.width() == 2);
  CHECK(net->classifier->weight_fake_quantize()->options.width() == 8);
  CHECK(net->second->output_fake_quantize()->options.bits() == 6);
  CHECK(net->add->output_fake_quantize()->options.symmetric());
  CHECK(net->input->output_fake_quantize()->options.bits() == 4);
}

TEST_CASE("prepare: settings that make no sense change nothing", "[quant][weight_quantizer]") {
  Net net;
  const auto before = keys(*net);
  const auto refuses = [&](const PrepareOptions& options, const char* message) {
    CHECK_THROWS_WITH(quant::prepare(*net, options), ContainsSubstring(message));
    CHECK(keys(*net) == before);
    CHECK_FALSE(net->classifier->is_prepared());
  };
  refuses(PrepareOptions().layer("third", LayerOptions().bits(4)),
          "there is no layer `third`; the layers are input, first");
  refuses(PrepareOptions().bits(9), "activations have at most 8 bits, got 9");
  refuses(PrepareOptions().weight_bits(9),
          "layer `first`: the weight quantizer `fake_quantize` takes 2 to 8 bits, got 9");
  refuses(PrepareOptions().layer("first", LayerOptions().to_float(true).bits(4)), "cannot be in float and have bits");
}

TEST_CASE("prepare: what trained is what lowers, with fewer bits too", "[quant][weight_quantizer]") {
  const auto check = [](const PrepareOptions& options) {
    Net net = watched(options);
    CHECK(steps_between(net) <= 1.5);
  };
  check(PrepareOptions().weight_bits(4));
  check(PrepareOptions().bits(4).weight_quantizer("lsq"));
  check(PrepareOptions().weight_bits(2));
  check(PrepareOptions().weight_quantizer("ternary").activation_bits(6).symmetric(true));
  check(PrepareOptions().weight_quantizer("binary"));
  check(PrepareOptions().weight_bits(3).scale_search("mse"));
  check(PrepareOptions().bits(4).activation_quantizer("lsq").weight_quantizer("lsq"));
  for (const std::string name : {"lsq+", "pact", "tqt", "range"}) {
    check(PrepareOptions().activation_quantizer(name).layer("second", LayerOptions().activation_bits(5)));
  }
}

TEST_CASE("prepare: a module that is not int8 throughout says what it is, as Python's", "[quant][weight_quantizer]") {
  Net net;
  quant::prepare(*net, PrepareOptions()
                           .layer("first", LayerOptions().weight_bits(4).weight_quantizer("lsq"))
                           .layer("second", LayerOptions().activation_quantizer("lsq").activation_bits(4))
                           .layer("add", LayerOptions().symmetric(true))
                           .layer("classifier", LayerOptions().to_float(true)));
  const at::Tensor bytes = net->named_buffers()["quantization_config"];
  const std::string text(reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>()), bytes.numel());
  CHECK(text ==
        "{\"add_fake_quantize\": \"fake_quantize symmetric [-127, 127]\", \"classifier\": \"float\", "
        "\"first.conv\": \"weight lsq 4, activation fake_quantize [-128, 127]\", "
        "\"input_fake_quantize\": \"fake_quantize [-128, 127]\", "
        "\"second.conv\": \"weight fake_quantize 8, activation lsq [0, 15]\"}");
}

TEST_CASE("load_weights: a file of another config is refused by its first layer", "[quant][weight_quantizer]") {
  const std::string path = (std::filesystem::temp_directory_path() / "torchslim_other_config.safetensors").string();
  Net saved;
  quant::prepare(*saved, PrepareOptions().layer("second", LayerOptions().weight_bits(4)));
  torchslim::models::save_weights(*saved, path);
  Net other;
  quant::prepare(*other, PrepareOptions().layer("second", LayerOptions().weight_bits(2)));
  CHECK_THROWS_WITH(torchslim::models::load_weights(*other, path),
                    ContainsSubstring("`second.conv` was trained with another config: the file has `weight "
                                      "fake_quantize 4") &&
                        ContainsSubstring("the model `weight fake_quantize 2"));
  Net same;
  quant::prepare(*same, PrepareOptions().layer("second", LayerOptions().weight_bits(4)));
  torchslim::models::load_weights(*same, path);
  CHECK(at::equal(same->second->conv->weight, saved->second->conv->weight));
  std::filesystem::remove(path);
}

TEST_CASE("freeze_weight_grid: weights that were rounded elsewhere ship as they are", "[quant][weight_quantizer]") {
  Net net = watched({});
  const auto rounded = quant::round_weight(net->second->conv->weight.detach(), quant::WeightGridOptions().bits(4));
  {
    const at::NoGradGuard no_grad;
    net->second->conv->weight.copy_(rounded.weight);
  }
  net->second->freeze_weight_grid(rounded.scale);
  CHECK(keys(*net).count("second.conv.weight_fake_quantize.scale") == 1);
  CHECK(at::equal(net->second->weight_fake_quantize()->quantize(net->second->conv->weight).codes, rounded.codes));
  CHECK(steps_between(net) <= 1.5);
  CHECK_THROWS_WITH(net->second->freeze_weight_grid(at::ones({3})), ContainsSubstring("layer `second`"));
  CHECK_THROWS_WITH(Net()->first->freeze_weight_grid(at::ones({8})), ContainsSubstring("call quant::prepare before"));
}

TEST_CASE("prepare: a last layer may stay in float", "[quant][weight_quantizer]") {
  Net net = watched(PrepareOptions().layer("classifier", LayerOptions().to_float(true)));
  CHECK_FALSE(net->classifier->is_prepared());
  net->eval();
  CHECK(net->forward(images()).sizes() == at::IntArrayRef({8, 5}));
  Net wrong;
  quant::prepare(*wrong, PrepareOptions().layer("first", LayerOptions().to_float(true)));
  CHECK_THROWS_WITH(wrong->forward(images()), ContainsSubstring("`second` is prepared, but its input has no grid"));
}
