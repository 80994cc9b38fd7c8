// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>

#include <string>
#include <vector>

namespace torchslim::quant::detail {

/// A convolution or linear layer of a module.
struct WeightedLayer {
  std::string name;
  at::Tensor weight;
};

/// Returns the convolution and linear layers in `module`, in order; throws c10::ValueError, with `who` in front, if there are none.
std::vector<WeightedLayer> weighted_layers(const char* who, const torch::nn::Module& module);

}  // namespace torchslim::quant::detail
