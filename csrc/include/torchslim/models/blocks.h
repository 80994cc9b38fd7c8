// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/quant/layers.h>

namespace torchslim::models {

/// Returns convolution without bias, batch norm, activation, as every network here uses them; padding keeps the image
/// size when the stride is 1. Python's ConvBnAct; keys `conv` and `bn`.
///   kernel_size  odd
///   groups       in_channels gives a depthwise convolution
TORCHSLIM_API quant::ConvBnAct2d conv_bn_act(int64_t in_channels, int64_t out_channels, int64_t kernel_size,
                                             int64_t stride = 1, int64_t groups = 1,
                                             quant::Activation activation = quant::Activation::kRelu);

/// A 3×3 convolution per channel, then a 1×1 convolution across them: MobileNetV1's block.
/// (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride), as the blocks below.
class TORCHSLIM_API DepthwiseSeparableImpl : public torch::nn::Cloneable<DepthwiseSeparableImpl> {
 public:
  DepthwiseSeparableImpl(int64_t in_channels, int64_t out_channels, int64_t stride);
  quant::QuantTensor forward(const quant::QuantTensor& x);
  void reset() override;

  quant::ConvBnAct2d depthwise{nullptr};
  quant::ConvBnAct2d pointwise{nullptr};

 private:
  int64_t in_channels_, out_channels_, stride_;
};
TORCH_MODULE(DepthwiseSeparable);

/// Widen by 1×1, filter per channel, narrow by 1×1 without activation; the input is added where the shapes agree:
/// MobileNetV2's block. `expand` is empty where `expansion` is 1.
class TORCHSLIM_API InvertedResidualImpl : public torch::nn::Cloneable<InvertedResidualImpl> {
 public:
  InvertedResidualImpl(int64_t in_channels, int64_t out_channels, int64_t stride, int64_t expansion);
  quant::QuantTensor forward(const quant::QuantTensor& x);
  void reset() override;

  quant::ConvBnAct2d expand{nullptr};
  quant::ConvBnAct2d depthwise{nullptr};
  quant::ConvBnAct2d project{nullptr};
  quant::Add add{nullptr};  // empty without residual

 private:
  int64_t in_channels_, out_channels_, stride_, expansion_;
};
TORCH_MODULE(InvertedResidual);

/// Two 3×3 convolutions beside a shortcut, then ReLU: ResNet's block. `shortcut` (1×1) is empty where the shape stays.
class TORCHSLIM_API BasicBlockImpl : public torch::nn::Cloneable<BasicBlockImpl> {
 public:
  BasicBlockImpl(int64_t in_channels, int64_t out_channels, int64_t stride = 1);
  quant::QuantTensor forward(const quant::QuantTensor& x);
  void reset() override;

  quant::ConvBnAct2d conv1{nullptr};
  quant::ConvBnAct2d conv2{nullptr};
  quant::ConvBnAct2d shortcut{nullptr};
  quant::Add add{nullptr};

 private:
  int64_t in_channels_, out_channels_, stride_;
};
TORCH_MODULE(BasicBlock);

/// Returns channels × width as a multiple of 8, at most 10 % below it; `channels` itself where `width` is 1.
/// The rule of the MobileNet papers' code. Throws c10::ValueError if width ≤ 0.
TORCHSLIM_API int64_t scale_channels(int64_t channels, double width);

/// Sets the weights as torchvision's MobileNets do; after the same torch::manual_seed, bit-equal to Python's.
/// Convolutions: normal, variance 2/fan_out (He et al. 2015, arXiv:1502.01852, eq. 14). Linear: normal, standard
/// deviation 0.01. Biases: 0. Batch norms stay as they start, 1 and 0.
TORCHSLIM_API void initialize(torch::nn::Module& module);

}  // namespace torchslim::models
