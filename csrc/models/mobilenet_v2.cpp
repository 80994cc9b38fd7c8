// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/models/mobilenet_v2.h>

#include <algorithm>

namespace torchslim::models {
namespace {

constexpr int64_t kSmallestMap = 3;  // pixels; what the paper's smallest input, 96 pixels, comes to
constexpr int64_t kStemStride = 2;

/// The strides of the stem and of each stage, turned into 1 from the front until enough pixels are left at the end.
std::vector<int64_t> fit_strides(const MobileNetV2Options& options) {
  TORCH_CHECK_VALUE(options.input_size() >= kSmallestMap,
                    "torchslim::models::MobileNetV2: input_size must be at least ", kSmallestMap, ", got ",
                    options.input_size());
  std::vector<int64_t> strides{kStemStride};
  for (const MobileNetV2Stage& stage : options.stages()) {
    strides.push_back(stage.stride);
  }
  for (int64_t& first : strides) {
    int64_t size = options.input_size();
    for (const int64_t stride : strides) {
      size = (size + stride - 1) / stride;
    }
    if (size >= kSmallestMap) {
      break;
    }
    first = 1;
  }
  return strides;
}

}  // namespace

MobileNetV2Impl::MobileNetV2Impl(MobileNetV2Options options) : options(std::move(options)) {
  reset();
  initialize(*this);
}

void MobileNetV2Impl::reset() {
  constexpr auto kRelu6 = quant::Activation::kRelu6;
  TORCH_CHECK_VALUE(!options.stages().empty(), "torchslim::models::MobileNetV2: stages must hold at least one row");
  const std::vector<int64_t> strides = fit_strides(options);
  int64_t channels = scale_channels(options.stem_channels(), options.width());
  input = register_module("input", quant::Input());
  features = register_module("features", torch::nn::Sequential());
  features->push_back(conv_bn_act(options.in_channels(), channels, 3, strides[0], 1, kRelu6));
  for (size_t i = 0; i < options.stages().size(); ++i) {
    const MobileNetV2Stage& stage = options.stages()[i];
    const int64_t out_channels = scale_channels(stage.channels, options.width());
    for (int64_t block = 0; block < stage.blocks; ++block) {
      features->push_back(InvertedResidual(channels, out_channels, block == 0 ? strides[i + 1] : 1, stage.expansion));
      channels = out_channels;
    }
  }
  const int64_t last = scale_channels(options.last_channels(), std::max(1.0, options.width()));
  features->push_back(conv_bn_act(channels, last, 1, 1, 1, kRelu6));
  pool = register_module("pool", quant::GlobalAvgPool2d());
  flatten = register_module("flatten", quant::Flatten());
  classifier = register_module("classifier", quant::Linear(last, options.num_classes()));
}

at::Tensor MobileNetV2Impl::forward(const at::Tensor& images) {
  return classifier(flatten(pool(features->forward<quant::QuantTensor>(input(images))))).value;
}

}  // namespace torchslim::models
