// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>
#include <torchslim/quant/batches.h>
#include <torchslim/quant/layer_samples.h>
#include <torchslim/quant/weight_grid.h>

#include <cstdint>
#include <optional>
#include <string>

namespace torchslim::quant {

/// Options for `adaround`.
///
/// Example: adaround(weight, bias, samples, AdaroundOptions().bits(4).activation("relu"))
struct TORCHSLIM_API AdaroundOptions {
  /// Width of a code, 2 to 8. Empty: 4, and in `apply_adaround` the width that each layer was prepared with.
  TORCH_ARG(std::optional<int64_t>, bits) = std::nullopt;
  /// How the scale of a channel is chosen beforehand: "absmax" or "mse" (WeightGridOptions). Default: "absmax".
  TORCH_ARG(std::string, scale_search) = "absmax";
  /// Steps of Adam, ≥ 1. Default: 10000.
  TORCH_ARG(int64_t, iterations) = 10000;
  /// Rows in a step, ≥ 1, drawn with replacement; all rows in each step if there are no more. Default: 256.
  TORCH_ARG(int64_t, batch_size) = 256;
  /// λ, the weight of what makes the choice definite, ≥ 0. Default: 0.01.
  TORCH_ARG(double, regularization) = 0.01;
  /// What is applied to the output, and to the target, before they are compared: "none", "relu" or "relu6". Default: "none".
  TORCH_ARG(std::string, activation) = "none";
  /// Of the rows drawn. Default: 0.
  TORCH_ARG(int64_t, seed) = 0;
};

/// Rounds each number of a weight up or down so that the layer's output is nearest to the outputs wanted: learns h(V) in
///   w̃ = scale · clamp(⌊w / scale⌋ + h(V)),   h(V) = clip(1.2·sigmoid(V) − 0.1, 0, 1)
/// by Adam (rate 0.01) on  mean over rows of Σ(act(w̃·x + bias) − act(y))²  +  λ·Σ(1 − |2h − 1|^β),  where λ counts after a
/// fifth of the steps and β then falls from 20 to 2 by half a cosine. At the end h is rounded. A channel that the nearest grid
/// point serves as well on all rows kept takes that, so the result is never worse there. Rows x are what the layer is given in
/// the quantised network and y what it answers in the float one: so errors of layers before it are made good too.
///   weight   (O, ...) float32, float64, bfloat16 or float16, not empty
///   bias     (O) of the layer, or undefined: 0
///   samples  of a layer of the weight's shape
///   scale    (O) float32, > 0, or undefined: `weight_scale` of the options
///   progress hears of the steps, every hundredth
/// The same bits for any number of threads. Time grows with the weight's size, `iterations` and `batch_size`.
/// Throws c10::ValueError on NaN or infinity, shapes, options out of range and empty samples.
/// No gradient. Nagel et al. 2020, arXiv:2004.10568, eq. 21-25.
TORCHSLIM_API GridWeight adaround(const at::Tensor& weight, const at::Tensor& bias, const LayerSamples& samples,
                                  const AdaroundOptions& options = {}, const at::Tensor& scale = {},
                                  const Progress& progress = {});

}  // namespace torchslim::quant
