// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/modules/container/sequential.h>
#include <torchslim/models/blocks.h>

#include <vector>

namespace torchslim::models {

/// A row of the paper's table 2: `blocks` inverted residuals, the first of them with `stride`.
struct TORCHSLIM_API MobileNetV2Stage {
  int64_t expansion;
  int64_t channels;
  int64_t blocks;
  int64_t stride;
};

/// Options of MobileNetV2; the defaults are the paper's.
struct TORCHSLIM_API MobileNetV2Options {
  /// Size of the output.
  TORCH_ARG(int64_t, num_classes) = 10;
  /// Multiplies all channels, then rounds to multiples of 8; `last_channels` only grows with it.
  TORCH_ARG(double, width) = 1.0;
  /// Channels of the images.
  TORCH_ARG(int64_t, in_channels) = 3;
  /// Pixels of the images' shorter side, at least 3. Small images keep detail: strides become 1, from the first one on,
  /// until the last map has at least 3×3 pixels (28 and 32 pixels: two of the five strides of 2; 96 and more: none).
  TORCH_ARG(int64_t, input_size) = 224;
  /// Output channels of the first convolution.
  TORCH_ARG(int64_t, stem_channels) = 32;
  /// The inverted residuals.
  TORCH_ARG(std::vector<MobileNetV2Stage>, stages) = {
    {1, 16, 1, 1},
    {6, 24, 2, 2},
    {6, 32, 3, 2},
    {6, 64, 4, 2},
    {6, 96, 3, 1},
    {6, 160, 3, 2},
    {6, 320, 1, 1}
  };
  /// Output channels of the last convolution.
  TORCH_ARG(int64_t, last_channels) = 1280;
};

/// A 3×3 convolution, inverted residuals, a 1×1 convolution, global average pool, linear (Sandler et al. 2018,
/// arXiv:1801.04381, table 2). Keys: features.0, features.i.{expand,depthwise,project}, the last of features,
/// classifier, as in Python.
/// Throws c10::ValueError if stages is empty, width ≤ 0 or input_size < 3.
class TORCHSLIM_API MobileNetV2Impl : public torch::nn::Cloneable<MobileNetV2Impl> {
 public:
  explicit MobileNetV2Impl(MobileNetV2Options options = {});
  /// Returns logits (N, num_classes) of images (N, in_channels, H, W).
  at::Tensor forward(const at::Tensor& images);
  void reset() override;

  MobileNetV2Options options;
  quant::Input input{nullptr};
  torch::nn::Sequential features{nullptr};
  quant::GlobalAvgPool2d pool{nullptr};
  quant::Flatten flatten{nullptr};
  quant::Linear classifier{nullptr};
};
TORCH_MODULE(MobileNetV2);

}  // namespace torchslim::models
