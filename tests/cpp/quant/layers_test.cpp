// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/graph/capture.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/layers.h>

#include <set>

#include "cpp/catch.hpp"

namespace quant = torchslim::quant;
using quant::Activation;
using quant::QuantTensor;

namespace {

/// Every drop-in layer once: a residual block with a max pool in front, a pool and a linear layer behind.
struct SmallNetImpl : torch::nn::Module {
  quant::Input input;
  quant::ConvBnAct2d first{quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(2, 4, 3).padding(1).bias(false))};
  quant::MaxPool2d max_pool{torch::nn::MaxPool2dOptions(2)};
  quant::ConvBnAct2d second{
      quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(4, 4, 1)).batch_norm(false).activation(Activation::kRelu6)};
  quant::Add add{Activation::kRelu};
  quant::GlobalAvgPool2d pool;
  quant::Flatten flatten;
  quant::Linear classifier{4, 3};

  SmallNetImpl() {
    register_module("input", input);
    register_module("first", first);
    register_module("second", second);
    register_module("add", add);
    register_module("classifier", classifier);
  }
  QuantTensor features(const at::Tensor& images) {
    const QuantTensor x = max_pool(first(input(images)));
    return flatten(pool(add(x, second(x))));
  }
  at::Tensor forward(const at::Tensor& images) { return classifier(features(images)).value; }
};
TORCH_MODULE(SmallNet);

at::Tensor images() {
  torch::manual_seed(1);
  return torch::randn({4, 2, 8, 8});
}

/// A prepared network whose quantisers have seen a batch and whose batch norm is far from the identity.
SmallNet prepared_net() {
  torch::manual_seed(0);
  SmallNet net;
  quant::prepare(*net);
  {
    const torch::NoGradGuard no_grad;
    net->first->bn->weight.copy_(torch::tensor({1.5, -0.5, 0.0, 2.0}));
    net->first->bn->bias.uniform_(-1, 1);
    net->first->bn->running_mean.uniform_(-0.5, 0.5);
    net->first->bn->running_var.uniform_(0.5, 2);
  }
  net->forward(images());
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

bool lies_on_grid(const QuantTensor& x) {
  return at::equal(x.value, quant::fake_quantize(x.value, x.scale, x.zero_point, -128, 127));
}

}  // namespace

TEST_CASE("layers: before prepare they are LibTorch's own layers", "[quant][layers]") {
  torch::manual_seed(0);
  SmallNet net;
  const at::Tensor x = images();
  auto by_hand = torch::max_pool2d(torch::relu(net->first->bn->forward(net->first->conv->forward(x))), 2);
  by_hand = torch::relu(by_hand + torch::relu6(net->second->conv->forward(by_hand)));
  by_hand = torch::linear(by_hand.mean({2, 3}), net->classifier->weight, net->classifier->bias);
  net->first->bn->reset_running_stats();
  CHECK(at::allclose(net->forward(x), by_hand));
  CHECK_FALSE(net->features(x).scale.defined());
  CHECK(keys(*net) == std::set<std::string>{"first.conv.weight", "first.bn.weight", "first.bn.bias",
                                            "first.bn.running_mean", "first.bn.running_var",
                                            "first.bn.num_batches_tracked", "second.conv.weight", "second.conv.bias",
                                            "classifier.weight", "classifier.bias"});
  CHECK_THROWS_WITH(net->add->output_fake_quantize(), ContainsSubstring("before quant::prepare"));
}

TEST_CASE("layers: prepare adds quantisers under the names of Python's prepare", "[quant][layers]") {
  SmallNet net;
  const std::set<std::string> before = keys(*net);
  quant::prepare(*net);
  std::set<std::string> added;
  for (const std::string& key : keys(*net)) {
    if (before.count(key) == 0) {
      added.insert(key.substr(0, key.rfind('.')));
    }
  }
  CHECK(added == std::set<std::string>{"input_fake_quantize", "first.conv.output_fake_quantize",
                                       "second.conv.output_fake_quantize", "add_fake_quantize",
                                       "classifier.output_fake_quantize"});
  CHECK(keys(*net).size() == before.size() + 5 * 6);
}

TEST_CASE("layers: in training the weight is on its grid and the batch norm takes the batch", "[quant][layers]") {
  SmallNet net = prepared_net();
  net->eval();
  const QuantTensor x = net->input(images());
  net->first->train();
  quant::disable_observer(*net);
  const QuantTensor y = net->first(x);
  const auto weight = std::get<0>(quant::fake_quantize_weight(net->first->conv->weight));
  const auto& bn = *net->first->bn;
  const auto normal = torch::batch_norm(torch::conv2d(x.value, weight, {}, 1, 1), bn.weight, bn.bias, {}, {}, true, 0.1,
                                        bn.options.eps(), false);
  CHECK(at::equal(y.value, quant::fake_quantize(normal.relu(), y.scale, y.zero_point, -128, 127)));
  y.value.sum().backward();
  CHECK(net->first->conv->weight.grad().abs().sum().item<float>() > 0);
}

TEST_CASE("layers: in eval they run the integers that are exported", "[quant][layers]") {
  SmallNet net = prepared_net();
  net->eval();
  const QuantTensor x = net->input(images());
  const QuantTensor y = net->first(x);
  const auto& bn = *net->first->bn;
  const quant::BatchNormTensors norm{bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.options.eps()};
  const quant::FoldedWeight folded = quant::fold_layer(net->first->conv->weight, {}, norm, x.scale);
  const auto sum =
      torch::conv2d(x.value, quant::dequantize_weight(folded.codes, folded.scale), folded.bias, 1, 1).relu();
  CHECK(at::equal(y.value, quant::fake_quantize(sum, y.scale, y.zero_point, -128, 127)));
  const at::Tensor range = net->first->output_fake_quantize()->max_val.clone();
  net->forward(100 * images());
  CHECK(at::equal(net->first->output_fake_quantize()->max_val, range));
}

TEST_CASE("layers: every activation between layers lies on its grid", "[quant][layers]") {
  SmallNet net = prepared_net();
  for (const bool training : {true, false}) {
    net->train(training);
    const QuantTensor x = net->max_pool(net->first(net->input(images())));
    CHECK(lies_on_grid(x));
    CHECK(lies_on_grid(net->second(x)));
    const QuantTensor features = net->features(images());
    CHECK(features.rounded);
    CHECK(lies_on_grid(features));
    CHECK(lies_on_grid(net->classifier(features)));
  }
}

TEST_CASE("layers: eval has the gradient of the folded layer", "[quant][layers]") {
  SmallNet net = prepared_net();
  net->eval();
  net->forward(images()).square().sum().backward();
  for (const auto& item : net->named_parameters()) {
    INFO(item.key());
    REQUIRE(item.value().grad().defined());
    CHECK(item.value().grad().abs().sum().item<float>() > 0);
  }
}

TEST_CASE("layers: a trace holds operations that capture knows", "[quant][layers]") {
  SmallNet net = prepared_net();
  const auto graph = torchslim::graph::capture(net, images());
  std::string kinds;
  for (const auto& node : graph.nodes) {
    kinds += std::string(torchslim::graph::to_string(node.kind)) + " ";
  }
  CHECK(kinds ==
        "input fake_quantize conv2d batch_norm2d relu fake_quantize max_pool2d conv2d relu6 fake_quantize add relu "
        "fake_quantize global_avg_pool fake_quantize flatten linear fake_quantize ");
  REQUIRE(graph.nodes.size() == 18);
  CHECK(graph.nodes[2].weight.name == "first.conv.weight");
  CHECK(graph.nodes[2].weight_grid.has_value());
  CHECK(graph.nodes[16].weight_grid.has_value());
}

TEST_CASE("layers: with fake-quantise disabled they are float layers again", "[quant][layers]") {
  torch::manual_seed(0);
  SmallNet plain;
  torch::manual_seed(0);
  SmallNet net;
  quant::prepare(*net);
  quant::disable_fake_quant(*net);
  CHECK(at::equal(net->forward(images()), plain->forward(images())));
  CHECK(net->add->output_fake_quantize()->max_val.item<float>() > 0);  // observed all the same
  quant::enable_fake_quant(*net);
  CHECK_FALSE(at::equal(net->forward(images()), plain->forward(images())));
}

TEST_CASE("layers: observers of a whole network are held and released", "[quant][layers]") {
  SmallNet net = prepared_net();
  const at::Tensor& max_val = net->input->output_fake_quantize()->max_val;
  const float before = max_val.item<float>();
  quant::disable_observer(*net);
  net->forward(10 * images());
  CHECK(max_val.item<float>() == before);
  quant::enable_observer(*net);
  net->forward(10 * images());
  CHECK(max_val.item<float>() > before);
  CHECK_THROWS_WITH(quant::disable_observer(*SmallNet()), ContainsSubstring("call quant::prepare first"));
}

TEST_CASE("layers: prepare passes its options to the quantisers", "[quant][layers]") {
  SmallNet net;
  quant::prepare(*net, quant::PrepareOptions().averaging_constant(1.0));
  net->forward(images());
  net->forward(2 * images());
  CHECK(net->input->output_fake_quantize()->max_val.item<float>() == (2 * images()).max().item<float>());
  SmallNet widest;
  quant::prepare(*widest, quant::PrepareOptions().observer("min_max"));
  widest->forward(2 * images());
  widest->forward(images());
  CHECK(widest->input->output_fake_quantize()->max_val.item<float>() == (2 * images()).max().item<float>());
}

TEST_CASE("layers: a frozen batch norm keeps its statistics in training", "[quant][layers]") {
  SmallNet net = prepared_net();
  const at::Tensor& mean = net->first->bn->running_mean;
  const at::Tensor before = mean.clone();
  quant::freeze_batch_norm(*net);
  net->eval();
  net->train();
  net->forward(images()).sum().backward();
  CHECK(at::equal(mean, before));
  CHECK(net->first->bn->weight.grad().abs().sum().item<float>() > 0);
  quant::freeze_batch_norm(*net, false);
  net->forward(images());
  CHECK_FALSE(at::equal(mean, before));
  CHECK_THROWS_WITH(quant::freeze_batch_norm(*net->add), ContainsSubstring("holds no batch norm"));
}

TEST_CASE("layers: prepare refuses what it cannot prepare, by name, and changes nothing", "[quant][layers]") {
  SmallNet net;
  const std::set<std::string> before = keys(*net);
  {
    const torch::NoGradGuard no_grad;
    net->second->conv->weight[0] = NAN;
  }
  CHECK_THROWS_WITH(quant::prepare(*net), ContainsSubstring("`second.conv.weight` holds NaN or infinity"));
  net->second->conv->reset_parameters();
  net->first->bn->running_var.fill_(INFINITY);
  CHECK_THROWS_WITH(quant::prepare(*net), ContainsSubstring("`first.bn.running_var` holds NaN or infinity"));
  net->first->bn->reset_running_stats();
  net->to(torch::kDouble);
  CHECK_THROWS_AS(quant::prepare(*net), c10::TypeError);
  net->to(torch::kFloat);
  net->register_module("extra", torch::nn::Conv2d(1, 1, 1));
  CHECK_THROWS_WITH(quant::prepare(*net), ContainsSubstring("layer `extra`, a torch::nn::Conv2dImpl"));
  net->unregister_module("extra");
  net->register_module("extra", quant::ConvBnAct2d(quant::ConvBnAct2dOptions(
                                    torch::nn::Conv2dOptions(1, 1, 3).padding(1).padding_mode(torch::kCircular))));
  CHECK_THROWS_WITH(quant::prepare(*net), ContainsSubstring("layer `extra` must pad with zeros"));
  net->unregister_module("extra");
  CHECK_THROWS_AS(quant::prepare(*net, quant::PrepareOptions().observer("median")), c10::ValueError);
  CHECK(keys(*net) == before);
  CHECK_FALSE(net->first->is_prepared());
  quant::prepare(*net);
  CHECK_THROWS_WITH(quant::prepare(*net), ContainsSubstring("layer `input` is prepared already"));
  torch::nn::Sequential none{torch::nn::ReLU()};
  CHECK_THROWS_WITH(quant::prepare(*none), ContainsSubstring("holds none of the layers"));
}

TEST_CASE("layers: a layer that cannot run says which it is", "[quant][layers]") {
  SmallNet net = prepared_net();
  CHECK_THROWS_WITH(net->first(QuantTensor(images())),
                    ContainsSubstring("layer `first`") && ContainsSubstring("let images enter through quant::Input"));
  CHECK_THROWS_WITH(net->classifier(QuantTensor(torch::zeros({1, 4}))), ContainsSubstring("layer `classifier`"));
  CHECK_THROWS_WITH(net->add(torch::zeros({1, 2}), torch::zeros({2, 1})), ContainsSubstring("[1, 2] and [2, 1]"));
  net->eval();
  {
    const torch::NoGradGuard no_grad;
    net->first->bn->running_var.fill_(NAN);
  }
  CHECK_THROWS_WITH(net->forward(images()), ContainsSubstring("layer `first`: "));
}

TEST_CASE("layers: a float layer is cloned, a prepared one refuses", "[quant][layers]") {
  SmallNet net = prepared_net();
  CHECK_THROWS_WITH(net->first->clone(), ContainsSubstring("layer `first` is prepared and cannot be cloned"));
  CHECK_THROWS_WITH(net->classifier->clone(), ContainsSubstring("layer `classifier` is prepared"));
  quant::ConvBnAct2d layer{quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(2, 4, 3))};
  const auto copy = std::dynamic_pointer_cast<quant::ConvBnAct2dImpl>(layer->clone());
  REQUIRE(copy);
  CHECK(at::equal(copy->forward(images()).value, layer(images()).value));
  CHECK_FALSE(copy->conv->weight.is_same(layer->conv->weight));
}

TEST_CASE("layers: they stand in a Sequential, two additions get two names", "[quant][layers]") {
  torch::nn::Sequential net(quant::Input(),
                            quant::ConvBnAct2d{quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(2, 4, 3))});
  quant::prepare(*net);
  CHECK(net->forward<QuantTensor>(images()).rounded);
  CHECK(keys(*net).count("input_fake_quantize.scale") == 1);
  torch::nn::Sequential additions{quant::Add(), quant::Add()};
  quant::prepare(*additions);
  CHECK(keys(*additions).count("add_fake_quantize.scale") == 1);
  CHECK(keys(*additions).count("add_fake_quantize_1.scale") == 1);
}

TEST_CASE("layers: products and concatenations train, and their integers are those of eval", "[quant][layers]") {
  struct NetImpl : torch::nn::Module {
    quant::Input input;
    quant::ConvBnAct2d left{quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(2, 4, 3).padding(1).bias(false))};
    quant::ConvBnAct2d right{quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(2, 4, 1).bias(false))};
    quant::Mul mul{Activation::kRelu6};
    quant::Concat concat;
    quant::ConvBnAct2d last{quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(8, 3, 1)).batch_norm(false)};
    NetImpl() {
      register_module("input", input);
      register_module("left", left);
      register_module("right", right);
      register_module("mul", mul);
      register_module("concat", concat);
      register_module("last", last);
    }
    at::Tensor forward(const at::Tensor& images) {
      const QuantTensor x = input(images);
      const QuantTensor a = left(x);
      return last(concat(std::vector<QuantTensor>{mul(a, right(x)), a})).value;
    }
  };
  torch::manual_seed(0);
  const auto net = std::make_shared<NetImpl>();
  quant::prepare(*net);
  CHECK(keys(*net).count("mul_fake_quantize.scale") == 1);
  CHECK(keys(*net).count("concat_fake_quantize.scale") == 1);
  for (int i = 0; i < 3; ++i) {
    net->forward(images()).square().mean().backward();
  }
  CHECK(net->right->conv->weight.grad().abs().max().item<float>() > 0);
  net->eval();
  const torch::NoGradGuard no_grad;
  const auto integers = torchslim::deploy::lower(torchslim::graph::capture(net, images()));
  CHECK(at::equal(torchslim::deploy::run_integer(integers, images()).values, net->forward(images())));
}
