// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/models/mobilenet_v1.h>

namespace torchslim::models {

MobileNetV1Impl::MobileNetV1Impl(MobileNetV1Options options) : options(std::move(options)) {
  reset();
  initialize(*this);
}

void MobileNetV1Impl::reset() {
  const auto& channels = options.channels();
  const auto& strides = options.strides();
  TORCH_CHECK_VALUE(channels.size() == strides.size() && !channels.empty(),
                    "torchslim::models::MobileNetV1: channels and strides need one entry a layer each, got ",
                    channels.size(), " and ", strides.size());
  int64_t width = scale_channels(channels[0], options.width());
  input = register_module("input", quant::Input());
  features = register_module("features", torch::nn::Sequential());
  features->push_back(conv_bn_act(options.in_channels(), width, 3, strides[0]));
  for (size_t i = 1; i < channels.size(); ++i) {
    const int64_t out_channels = scale_channels(channels[i], options.width());
    features->push_back(DepthwiseSeparable(width, out_channels, strides[i]));
    width = out_channels;
  }
  pool = register_module("pool", quant::GlobalAvgPool2d());
  flatten = register_module("flatten", quant::Flatten());
  classifier = register_module("classifier", quant::Linear(width, options.num_classes()));
}

at::Tensor MobileNetV1Impl::forward(const at::Tensor& images) {
  return classifier(flatten(pool(features->forward<quant::QuantTensor>(input(images))))).value;
}

}  // namespace torchslim::models
