// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torch/nn/init.h>
#include <torchslim/models/blocks.h>

#include <algorithm>

namespace torchslim::models {

using quant::Activation;
using quant::QuantTensor;

quant::ConvBnAct2d conv_bn_act(int64_t in_channels, int64_t out_channels, int64_t kernel_size, int64_t stride,
                               int64_t groups, Activation activation) {
  const auto conv = torch::nn::Conv2dOptions(in_channels, out_channels, kernel_size)
                        .stride(stride)
                        .padding(kernel_size / 2)
                        .groups(groups)
                        .bias(false);
  return quant::ConvBnAct2d(quant::ConvBnAct2dOptions(conv).activation(activation));
}

DepthwiseSeparableImpl::DepthwiseSeparableImpl(int64_t in_channels, int64_t out_channels, int64_t stride)
    : in_channels_(in_channels), out_channels_(out_channels), stride_(stride) {
  reset();
}

void DepthwiseSeparableImpl::reset() {
  depthwise = register_module("depthwise", conv_bn_act(in_channels_, in_channels_, 3, stride_, in_channels_));
  pointwise = register_module("pointwise", conv_bn_act(in_channels_, out_channels_, 1));
}

QuantTensor DepthwiseSeparableImpl::forward(const QuantTensor& x) { return pointwise(depthwise(x)); }

InvertedResidualImpl::InvertedResidualImpl(int64_t in_channels, int64_t out_channels, int64_t stride, int64_t expansion)
    : in_channels_(in_channels), out_channels_(out_channels), stride_(stride), expansion_(expansion) {
  reset();
}

void InvertedResidualImpl::reset() {
  const int64_t hidden = in_channels_ * expansion_;
  if (expansion_ != 1) {
    expand = register_module("expand", conv_bn_act(in_channels_, hidden, 1, 1, 1, Activation::kRelu6));
  }
  depthwise = register_module("depthwise", conv_bn_act(hidden, hidden, 3, stride_, hidden, Activation::kRelu6));
  project = register_module("project", conv_bn_act(hidden, out_channels_, 1, 1, 1, Activation::kNone));
  if (stride_ == 1 && in_channels_ == out_channels_) {
    add = register_module("add", quant::Add());
  }
}

QuantTensor InvertedResidualImpl::forward(const QuantTensor& x) {
  const QuantTensor y = project(depthwise(expand.is_empty() ? x : expand(x)));
  return add.is_empty() ? y : add(x, y);
}

BasicBlockImpl::BasicBlockImpl(int64_t in_channels, int64_t out_channels, int64_t stride)
    : in_channels_(in_channels), out_channels_(out_channels), stride_(stride) {
  reset();
}

void BasicBlockImpl::reset() {
  conv1 = register_module("conv1", conv_bn_act(in_channels_, out_channels_, 3, stride_));
  conv2 = register_module("conv2", conv_bn_act(out_channels_, out_channels_, 3, 1, 1, Activation::kNone));
  if (stride_ != 1 || in_channels_ != out_channels_) {
    shortcut = register_module("shortcut", conv_bn_act(in_channels_, out_channels_, 1, stride_, 1, Activation::kNone));
  }
  add = register_module("add", quant::Add(Activation::kRelu));
}

QuantTensor BasicBlockImpl::forward(const QuantTensor& x) {
  return add(conv2(conv1(x)), shortcut.is_empty() ? x : shortcut(x));
}

int64_t scale_channels(int64_t channels, double width) {
  TORCH_CHECK_VALUE(width > 0, "torchslim::models: width must be > 0, got ", width);
  if (width == 1) {
    return channels;
  }
  const double exact = static_cast<double>(channels) * width;
  const int64_t scaled = std::max<int64_t>(8, static_cast<int64_t>(exact + 4) / 8 * 8);
  return static_cast<double>(scaled) < 0.9 * exact ? scaled + 8 : scaled;
}

void initialize(torch::nn::Module& module) {
  module.apply([](torch::nn::Module& layer) {
    if (auto* conv = layer.as<torch::nn::Conv2dImpl>()) {
      torch::nn::init::kaiming_normal_(conv->weight, 0, torch::kFanOut, torch::kReLU);
      if (conv->bias.defined()) {
        torch::nn::init::zeros_(conv->bias);
      }
    } else if (auto* linear = layer.as<torch::nn::LinearImpl>()) {
      torch::nn::init::normal_(linear->weight, 0.0, 0.01);
      if (linear->bias.defined()) {
        torch::nn::init::zeros_(linear->bias);
      }
    }
  });
}

}  // namespace torchslim::models
