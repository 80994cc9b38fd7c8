// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <string>
#include <vector>

// What a prepared module was prepared with, as the buffer `quantization_config` (uint8, JSON text) that states carry: Python
// writes the same text. A module that is int8 throughout has none.
namespace torchslim::quant::detail {

constexpr const char* kQuantizationConfig = "quantization_config";

/// Returns the config of a prepared module, with `float_layers` that stay in float; undefined if it is int8 throughout.
at::Tensor quantization_config(const torch::nn::Module& module, const std::vector<std::string>& float_layers);

/// Returns in words how the config of a file differs from a model's, or nothing if they are equal.
std::string config_difference(const at::Tensor& model, const at::Tensor& file);

}  // namespace torchslim::quant::detail
