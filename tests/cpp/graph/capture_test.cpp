// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/graph/capture.h>
#include <torchslim/graph/interpret.h>

#include "cpp/catch.hpp"

namespace graph = torchslim::graph;
namespace nn = torch::nn;

namespace {

using Kinds = std::vector<std::string>;

Kinds kinds(const graph::Graph& captured) {
  Kinds result;
  for (const auto& node : captured.nodes) {
    result.emplace_back(to_string(node.kind));
  }
  return result;
}

struct BlockImpl : nn::Module {
  BlockImpl(int64_t inputs, int64_t outputs, int64_t stride)
      : conv1(register_module("conv1",
                              nn::Conv2d(nn::Conv2dOptions(inputs, outputs, 3).stride(stride).padding(1).bias(false)))),
        bn1(register_module("bn1", nn::BatchNorm2d(outputs))),
        conv2(register_module("conv2", nn::Conv2d(nn::Conv2dOptions(outputs, outputs, 3).padding(1).groups(outputs)))),
        shortcut(register_module("shortcut", nn::Conv2d(nn::Conv2dOptions(inputs, outputs, 1).stride(stride)))) {}

  at::Tensor forward(at::Tensor x) {
    auto y = torch::relu(bn1(conv1(x)));
    y = conv2(y);
    y += shortcut(x);
    return y.relu_();
  }

  nn::Conv2d conv1;
  nn::BatchNorm2d bn1;
  nn::Conv2d conv2;
  nn::Conv2d shortcut;
};
TORCH_MODULE(Block);

// `flat` says how the pooled image becomes a row.
struct NetImpl : nn::Module {
  explicit NetImpl(std::function<at::Tensor(at::Tensor)> flat) : flat_(std::move(flat)) {
    body = register_module("body", nn::Sequential(Block(3, 8, 2), Block(8, 12, 1)));
    classifier = register_module("classifier", nn::Linear(12, 5));
  }

  at::Tensor forward(at::Tensor x) {
    x = torch::adaptive_avg_pool2d(nn::functional::relu6(body->forward(x)), {1, 1});
    return classifier(torch::dropout(flat_(x), 0.5, is_training()));
  }

  nn::Sequential body{nullptr};
  nn::Linear classifier{nullptr};
  std::function<at::Tensor(at::Tensor)> flat_;
};
TORCH_MODULE(Net);

const Kinds kNetKinds{"input", "conv2d", "batch_norm2d",    "relu",    "conv2d", "conv2d", "add",
                      "relu",  "conv2d", "batch_norm2d",    "relu",    "conv2d", "conv2d", "add",
                      "relu",  "relu6",  "global_avg_pool", "flatten", "linear"};

at::Tensor flatten(at::Tensor x) { return x.flatten(1); }
at::Tensor view(at::Tensor x) { return x.view({x.size(0), -1}); }

}  // namespace

TEST_CASE("capture: a C++ module's graph computes its eval output", "[graph][capture]") {
  torch::manual_seed(0);
  Net net(flatten);
  const auto example = torch::randn({2, 3, 9, 9});
  const auto captured = graph::capture(net, example);
  CHECK(kinds(captured) == kNetKinds);
  CHECK(captured.nodes[1].weight.name == "body.0.conv1.weight");
  CHECK(captured.nodes[1].layer == "body.0.conv1");
  CHECK(captured.nodes[1].weight.value.unsafeGetTensorImpl() ==
        net->named_parameters()["body.0.conv1.weight"].unsafeGetTensorImpl());
  net->eval();
  for (const int64_t batch : {2, 5}) {
    const auto x = torch::randn({batch, 3, 9, 9});
    CHECK(torch::allclose(graph::run_float(captured, x), net->forward(x), 0, 1e-5));
  }
}

TEST_CASE("capture: a C++ module is left as it was", "[graph][capture]") {
  Net net(flatten);
  net->body[0]->as<Block>()->bn1->eval();
  const auto mean = net->body[1]->as<Block>()->bn1->running_mean.clone();
  const auto example = torch::randn({2, 3, 9, 9});
  const auto before = example.clone();
  graph::capture(net, example);
  CHECK(net->is_training());
  CHECK(net->classifier->is_training());
  CHECK(net->body[0]->as<Block>()->is_training());
  CHECK_FALSE(net->body[0]->as<Block>()->bn1->is_training());
  for (const auto& parameter : net->parameters()) {
    CHECK(parameter.requires_grad());
  }
  CHECK(torch::equal(net->body[1]->as<Block>()->bn1->running_mean, mean));
  CHECK(torch::equal(example, before));
}

TEST_CASE("capture: a view by the batch size of a C++ module is proven harmless", "[graph][capture]") {
  Net net(view);
  CHECK(kinds(graph::capture(net, torch::randn({2, 3, 9, 9}))) == kNetKinds);
  Net fixed([](at::Tensor x) { return x.view({2, -1}); });
  CHECK_THROWS(graph::capture(fixed, torch::randn({2, 3, 9, 9})));
}

TEST_CASE("capture: any callable over a module", "[graph][capture]") {
  nn::Linear linear(12, 4);
  const auto captured =
      graph::capture(*linear, [&](at::Tensor x) { return torch::relu(linear(x.flatten(1))); }, torch::randn({3, 3, 4}));
  CHECK(kinds(captured) == Kinds{"input", "flatten", "linear", "relu"});
  CHECK(captured.nodes[2].weight.name == "weight");
  CHECK(captured.nodes[2].layer.empty());
}

TEST_CASE("capture: linear without bias and a bias added by hand", "[graph][capture]") {
  nn::Linear linear(nn::LinearOptions(6, 4).bias(false));
  const auto bias = linear->register_parameter("offset", torch::randn({4}));
  const auto captured = graph::capture(*linear, [&](at::Tensor x) { return linear(x) + bias; }, torch::randn({3, 6}));
  REQUIRE(kinds(captured) == Kinds{"input", "linear"});
  CHECK(captured.nodes[1].weight.name == "weight");
  CHECK(captured.nodes[1].bias.name == "offset");
}

TEST_CASE("capture: other operations of ATen's run as they did, at any batch size", "[graph][capture]") {
  torch::manual_seed(9);
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(3, 4, 3));
  const auto forward = [&](at::Tensor x) {
    at::Tensor y = conv(x);
    y = torch::cat({y, torch::hardswish(y)}, 1);
    y = y * y.mean({2, 3}, true).sigmoid();
    y = y.view({y.size(0), 2, 4, -1}).transpose(1, 2).contiguous().view({y.size(0), 8, -1});
    return torch::layer_norm(y, {y.size(2)}).softmax(1).narrow(1, 2, 3);
  };
  const graph::Graph graph = graph::capture(*conv, forward, torch::randn({2, 3, 6, 6}));
  const at::Tensor x = torch::randn({5, 3, 6, 6});
  CHECK(graph::run_float(graph, x).equal(forward(x).detach()));
}

TEST_CASE("capture: constants beside the input, and a batch that lies elsewhere for a while", "[graph][capture]") {
  torch::manual_seed(9);
  torch::nn::Linear qkv(8, 24);
  const auto token = qkv->register_parameter("token", torch::randn({1, 1, 8}));
  const auto forward = [&](at::Tensor x) {
    const at::Tensor y = torch::cat({token.expand({x.size(0), 1, 8}), x}, 1);
    const std::vector<at::Tensor> parts = qkv(y).unflatten(2, {3, 2, 4}).permute({2, 0, 3, 1, 4}).unbind(0);
    return torch::glu(parts[0].matmul(parts[1].transpose(2, 3)).softmax(-1).matmul(parts[2]), -1);
  };
  const graph::Graph graph = graph::capture(*qkv, forward, torch::randn({2, 5, 8}));
  const at::Tensor x = torch::randn({4, 5, 8});
  CHECK(graph::run_float(graph, x).allclose(forward(x).detach()));
}

TEST_CASE("capture: refusals name operation and remedy", "[graph][capture]") {
  nn::Conv2d conv(3, 4, 3);
  const auto x = torch::randn({2, 3, 8, 8});
  const auto refused = [&](const std::function<at::Tensor(at::Tensor)>& tail) {
    try {
      graph::capture(*conv, [&](at::Tensor y) { return tail(conv(y)); }, x);
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string("not refused");
  };
  CHECK_THAT(refused([](at::Tensor y) { return y.lgamma(); }),
             ContainsSubstring("aten::lgamma") && ContainsSubstring("replace it by"));
  CHECK_THAT(refused([](at::Tensor y) { return torch::dropout(y, 0.5, true); }), ContainsSubstring("dropout is on"));
  CHECK_THAT(refused([](at::Tensor y) { return y.softmax(0); }), ContainsSubstring("across the images of the batch"));
  CHECK_THAT(refused([](at::Tensor y) { return y.max().item<float>() > 0 ? y : y.relu(); }),
             ContainsSubstring("keep decisions on values out of forward"));
  const auto flag = torch::ones({1});
  CHECK(refused([&](at::Tensor y) { return flag.item<float>() > 0 ? y : y.relu(); }) == "not refused");
  CHECK(conv->is_training());
  {
    const torch::NoGradGuard no_grad;
    conv->weight[0][0][0][0] = std::numeric_limits<float>::infinity();
  }
  CHECK_THAT(refused([](at::Tensor y) { return y; }), ContainsSubstring("`weight` holds NaN or Inf"));
  CHECK_THROWS_AS(graph::capture(conv, x.to(torch::kDouble)), c10::TypeError);
  CHECK_THROWS_AS(graph::capture(conv, at::Tensor()), c10::ValueError);
}
