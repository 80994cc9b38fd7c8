// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/api/include/torch/arg.h>
#include <torch/nn/module.h>
#include <torchslim/api.h>
#include <torchslim/graph/count.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace torchslim::quant {

/// What the network was worth with one layer rounded and all others in float.
struct TORCHSLIM_API LayerSensitivity {
  std::string layer;
  int64_t weights = 0;         // elements of its weight
  int64_t channels = 0;        // its output channels, each with one scale
  int64_t macs = 0;            // multiply-accumulates for one image; 0 where they were not counted
  std::vector<double> values;  // of `evaluate`, for each of Sensitivity::bits
};

/// What each layer of a network suffers from few bits.
struct TORCHSLIM_API Sensitivity {
  std::vector<int64_t> bits;
  bool higher_is_better = true;
  double baseline = 0;  // of `evaluate`, all in float
  std::vector<LayerSensitivity> layers;

 public:
  /// Returns how much worse than the baseline layer `layer` makes the network with bits[i]; below 0 where it is better.
  double damage(size_t layer, size_t i) const {
    const double change = layers[layer].values[i] - baseline;
    return higher_is_better ? -change : change;
  }
};

/// Returns a table of `sensitivity`: a line for each layer, the worst for the fewest bits first.
TORCHSLIM_API std::string to_string(const Sensitivity& sensitivity);

/// Options for `sensitivity`.
struct TORCHSLIM_API SensitivityOptions {
  /// Widths of the weights' codes to try, 2 to 8 each. Default: 2, 4, 8.
  TORCH_ARG(std::vector<int64_t>, bits) = { 2, 4, 8 };
  /// Whether `evaluate` returns an accuracy (true) or a loss (false). Default: true.
  TORCH_ARG(bool, higher_is_better) = true;
  /// How the scale of a channel is chosen (WeightGridOptions): "absmax" or "mse". Default: "absmax".
  TORCH_ARG(std::string, scale_search) = "absmax";
  /// Of graph::count_layers, to have the layers' multiplications; empty: they stay 0.
  TORCH_ARG(std::vector<graph::LayerCount>, counts) = {};
  /// Called after each evaluation with how many are done, and of how many.
  TORCH_ARG(std::function<void(int64_t, int64_t)>, progress) = {};
};

/// Evaluates `module` in float, then with the weight of one convolution or linear layer at a time rounded to its grid
/// (`round_weight`): 1 + layers × widths calls.
///   module    runs in eval, in float if it is prepared; after the call, or an error, all is as it was, bit for bit
///   evaluate  returns an accuracy or a loss of the module, finite
/// Throws c10::ValueError on options out of range, a module without such layers, and a value that is not finite, by the layer.
TORCHSLIM_API Sensitivity sensitivity(torch::nn::Module& module,
                                      const std::function<double(torch::nn::Module&)>& evaluate,
                                      const SensitivityOptions& options = {});

}  // namespace torchslim::quant
