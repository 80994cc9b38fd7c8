// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/modules/container/sequential.h>
#include <torchslim/models/blocks.h>

#include <vector>

namespace torchslim::models {

/// Options of MobileNetV1; the defaults are the paper's.
struct TORCHSLIM_API MobileNetV1Options {
  /// Size of the output.
  TORCH_ARG(int64_t, num_classes) = 10;
  /// Multiplies all channels, then rounds to multiples of 8; 1 keeps them as given.
  TORCH_ARG(double, width) = 1.0;
  /// Channels of the images.
  TORCH_ARG(int64_t, in_channels) = 3;
  /// Output channels of the first convolution and of each block after it.
  TORCH_ARG(std::vector<int64_t>, channels) = { 32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024 };
  /// Their strides, as many.
  TORCH_ARG(std::vector<int64_t>, strides) = { 2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1 };
};

/// A 3×3 convolution, depthwise-separable blocks, global average pool, linear (Howard et al. 2017, arXiv:1704.04861,
/// table 1). Keys: features.0, features.i.{depthwise,pointwise}, classifier, as in Python.
/// Throws c10::ValueError if channels and strides differ in length or are empty, or width ≤ 0.
class TORCHSLIM_API MobileNetV1Impl : public torch::nn::Cloneable<MobileNetV1Impl> {
 public:
  explicit MobileNetV1Impl(MobileNetV1Options options = {});
  /// Returns logits (N, num_classes) of images (N, in_channels, H, W).
  at::Tensor forward(const at::Tensor& images);
  void reset() override;

  MobileNetV1Options options;
  quant::Input input{nullptr};
  torch::nn::Sequential features{nullptr};
  quant::GlobalAvgPool2d pool{nullptr};
  quant::Flatten flatten{nullptr};
  quant::Linear classifier{nullptr};
};
TORCH_MODULE(MobileNetV1);

}  // namespace torchslim::models
