// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/quant/layers.h>

#include <vector>

// A network for the tests of methods for trained models.
namespace small_net {

/// A convolution, a depthwise one, a residual block and a linear layer; batch norms in front.
struct NetImpl : torch::nn::Module {
  torchslim::quant::Input input;
  torchslim::quant::ConvBnAct2d first{torch::nn::Conv2dOptions(2, 6, 3).padding(1).bias(false)};
  torchslim::quant::ConvBnAct2d depthwise{torch::nn::Conv2dOptions(6, 6, 3).padding(1).groups(6).bias(false)};
  torchslim::quant::ConvBnAct2d pointwise{torchslim::quant::ConvBnAct2dOptions(torch::nn::Conv2dOptions(6, 6, 1))
                                              .batch_norm(false)
                                              .activation(torchslim::quant::Activation::kNone)};
  torchslim::quant::Add add{torchslim::quant::Activation::kRelu};
  torchslim::quant::GlobalAvgPool2d pool;
  torchslim::quant::Flatten flatten;
  torchslim::quant::Linear classifier{6, 4};
  bool fails = false;  // whether forward throws at its end

  NetImpl() {
    register_module("input", input);
    register_module("first", first);
    register_module("depthwise", depthwise);
    register_module("pointwise", pointwise);
    register_module("add", add);
    register_module("classifier", classifier);
  }
  at::Tensor forward(const at::Tensor& images) {
    const auto x = depthwise(first(input(images)));
    const at::Tensor y = classifier(flatten(pool(add(x, pointwise(x))))).value;
    TORCH_CHECK_VALUE(!fails, "as asked");
    return y;
  }
};
TORCH_MODULE(Net);

/// Images of which near pixels are alike.
inline std::vector<at::Tensor> batches(int64_t count = 4) {
  torch::manual_seed(1);
  std::vector<at::Tensor> result;
  for (int64_t i = 0; i < count; ++i) {
    result.push_back(torch::avg_pool2d(torch::randn({8, 2, 10, 10}), 3, 1));
  }
  return result;
}

/// A prepared network in eval whose batch norms are far from the identity, and whose quantisers have seen nothing.
inline Net prepared() {
  torch::manual_seed(0);
  Net net;
  torchslim::quant::prepare(*net);
  const torch::NoGradGuard no_grad;
  for (auto& norm : {net->first->bn, net->depthwise->bn}) {
    norm->weight.uniform_(-1.5, 1.5);
    norm->bias.uniform_(-0.5, 0.5);
    norm->running_mean.uniform_(-0.3, 0.3);
    norm->running_var.uniform_(0.1, 0.5);
  }
  net->eval();
  return net;
}

/// Copies of all parameters and buffers.
inline std::vector<at::Tensor> state(const torch::nn::Module& module) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : module.parameters()) {
    copies.push_back(tensor.detach().clone());
  }
  for (const at::Tensor& tensor : module.buffers()) {
    copies.push_back(tensor.clone());
  }
  return copies;
}

inline bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b.at(i))) {
      return false;
    }
  }
  return true;
}

}  // namespace small_net
