// SPDX-License-Identifier: BSD-3-Clause
#include "quant/weighted_layers.h"

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "quant/graph_layers.h"

namespace torchslim::quant::detail {

std::vector<WeightedLayer> weighted_layers(const char* who, const torch::nn::Module& module) {
  std::vector<WeightedLayer> layers;
  for (const auto& item : module.named_modules()) {
    if (const auto* conv = item.value()->as<torch::nn::Conv2dImpl>()) {
      layers.push_back({item.key(), conv->weight});
    } else if (const auto* linear = dynamic_cast<const torch::nn::LinearImpl*>(item.value().get())) {
      layers.push_back({item.key(), linear->weight});
    } else if (const auto* layer = item.value()->as<GraphLayerImpl>(); layer != nullptr && !layer->is_batch_norm()) {
      layers.push_back({item.key(), layer->weight()});
    }
  }
  TORCH_CHECK_VALUE(!layers.empty(), who, ": the module holds no convolution and no linear layer");
  return layers;
}

}  // namespace torchslim::quant::detail
