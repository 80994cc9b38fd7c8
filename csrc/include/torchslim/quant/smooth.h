// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/quant/batches.h>

#include <string>
#include <vector>

namespace torchslim::quant {

/// Returns by how much each input channel of some linear layers is to be divided, so that activations are as easy to round as
/// weights: s_j = max|x_j|^alpha / max|w_j|^(1 − alpha), with the largest |w| of column j in all weights; 1 where one is 0.
///   input_max  (I) largest |x| of each channel, floating point, ≥ 0
///   weights    each (O, I), floating point: of all layers that read the same input
///   alpha      in [0, 1]: 0 leaves the weights equal, 1 the activations
/// Returns float32 (I). Throws c10::ValueError on NaN or infinity, shapes and alpha.
/// Xiao et al. 2022, arXiv:2211.10438, eq. 4.
TORCHSLIM_API at::Tensor smooth_scale(const at::Tensor& input_max, const std::vector<at::Tensor>& weights,
                                      double alpha = 0.5);

/// Moves `scale` from activations into weights, in place: the weight and bias of what makes the input are divided by it, row by
/// row, and the columns of `weights` are multiplied. The float network computes the same.
///   scale         (I) > 0
///   before        weight of a LayerNorm, (I), or of a linear layer, (I, ...)
///   before_bias   (I), or undefined
///   weights       each (O, I), of all layers that read the input
/// Throws c10::ValueError, with nothing changed, where shapes do not fit or the scale is not > 0 and finite.
TORCHSLIM_API void apply_smooth_scale(const at::Tensor& scale, const at::Tensor& before, const at::Tensor& before_bias,
                                      const std::vector<at::Tensor>& weights);

/// A LayerNorm or linear layer, by its dotted name, and the linear layers that read its result, with nothing in between but
/// ReLU. Nothing else may read it.
struct TORCHSLIM_API SmoothGroup {
  std::string before;
  std::vector<std::string> after;
};

/// Makes the activations of a float network easier to round: for each group, `smooth_scale` of what `batches` show at the
/// input of its layers, then `apply_smooth_scale`. Without gradients, in eval mode; modes stay.
///   model     a float module of torch::nn::LayerNorm and torch::nn::Linear
///   batches   of its inputs; some hundred
///   alpha     in [0, 1]
///   progress  hears of each batch
/// Returns the scale of each group. Throws c10::ValueError, with nothing changed, for a name that is no such layer, a LayerNorm
/// without weight, a layer that is not run, NaN or infinity, or no batch. Xiao et al. 2022, arXiv:2211.10438.
TORCHSLIM_API std::vector<at::Tensor> smooth(const RunnableModule& model, const Batches& batches,
                                             const std::vector<SmoothGroup>& groups, double alpha = 0.5,
                                             const Progress& progress = {});

}  // namespace torchslim::quant
