// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/modules/container/sequential.h>
#include <torchslim/models/blocks.h>

#include <optional>
#include <vector>

namespace torchslim::models {

/// How a stage of a ResNet halves the image.
enum class Downsample {
  kStride,  // in the first block's convolution, from the second stage on: the paper's
  kPool,    // each stage begins with a 3×3 convolution and a 2×2 max pool: quick to train
};

/// Options of ResNet; the defaults are the paper's ResNet-20 for images of 32 pixels, with 1×1 shortcuts.
struct TORCHSLIM_API ResNetOptions {
  /// Size of the output.
  TORCH_ARG(int64_t, num_classes) = 10;
  /// Layers with weights on the main path, stem and classifier included: with kStride 2·blocks a stage + 2 (three
  /// stages: 20, 32, 44, 56, ...), with kPool one more a stage.
  TORCH_ARG(int64_t, depth) = 20;
  /// Multiplies all channels, then rounds to multiples of 8; 1 keeps them as given.
  TORCH_ARG(double, width) = 1.0;
  /// Channels of the images.
  TORCH_ARG(int64_t, in_channels) = 3;
  /// Channels of each stage.
  TORCH_ARG(std::vector<int64_t>, channels) = { 16, 32, 64 };
  /// Output channels of the first convolution; by default those of the first stage.
  TORCH_ARG(std::optional<int64_t>, stem_channels);
  /// Kernel size of the first convolution, odd.
  TORCH_ARG(int64_t, stem_kernel) = 3;
  /// Its stride.
  TORCH_ARG(int64_t, stem_stride) = 1;
  /// How a stage halves the image.
  TORCH_ARG(Downsample, downsample) = Downsample::kStride;
};

/// A convolution, stages of residual blocks, global average pool, linear (He et al. 2016, arXiv:1512.03385, section
/// 4.2). Keys: stem, blocks.i.{conv1,conv2,shortcut}, classifier, as in Python.
/// Throws c10::ValueError if there is no such depth for the number of stages, or width ≤ 0.
class TORCHSLIM_API ResNetImpl : public torch::nn::Cloneable<ResNetImpl> {
 public:
  explicit ResNetImpl(ResNetOptions options = {});
  /// Returns logits (N, num_classes) of images (N, in_channels, H, W).
  at::Tensor forward(const at::Tensor& images);
  void reset() override;

  ResNetOptions options;
  quant::Input input{nullptr};
  quant::ConvBnAct2d stem{nullptr};
  torch::nn::Sequential blocks{nullptr};
  quant::GlobalAvgPool2d pool{nullptr};
  quant::Flatten flatten{nullptr};
  quant::Linear classifier{nullptr};
};
TORCH_MODULE(ResNet);

}  // namespace torchslim::models
