// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <optional>

namespace torchslim::quant {

/// A weight as integers: `codes * scale` (per output channel) is exactly `fake_quantize(weight)`.
struct TORCHSLIM_API QuantizedWeight {
  at::Tensor codes;  // int8, shape of the weight, in [-127, 127]
  at::Tensor scale;  // float32 (O), > 0
};

/// A convolution or linear layer as integers; the result is `codes * scale` applied to the input, plus `bias`.
struct TORCHSLIM_API FoldedWeight {
  at::Tensor codes;  // int8, shape of the weight, in [-127, 127]
  at::Tensor scale;  // float32 (O), > 0
  at::Tensor bias;   // float32 (O)
};

/// The tensors of a batch norm with running statistics, each float32 (O).
struct TORCHSLIM_API BatchNormTensors {
  at::Tensor gamma;  // undefined: 1
  at::Tensor beta;   // undefined: 0
  at::Tensor mean;   // running mean
  at::Tensor var;    // running variance
  double eps = 1e-5;
};

/// Rounds `weight` to int8 on the grid of `weight_qparams`: symmetric per output channel, scale = max|w| / 127.
///   weight  (O, ...) float32
/// Rounds as fake_quantize does, so `codes * scale` has its bits. Throws c10::ValueError on NaN or infinity.
TORCHSLIM_API QuantizedWeight quantize_weight(const at::Tensor& weight);

/// Folds a batch norm into the integers of the layer before it, without touching how they were rounded:
/// with f = gamma / sqrt(var + eps), codes·sign(f), scale·|f| and beta + (bias - mean)·f. Computed in float64.
///   codes         (O, ...) int8, of `quantize_weight`
///   weight_scale  (O) float32, of `quantize_weight`
///   bias          (O) float32, or empty: 0
///   gamma, beta   (O) float32, or empty: 1 and 0
///   mean, var     (O) float32, running statistics; var >= 0
/// A channel with f = 0 (or so small that the scale is no normal float) gets codes 0 and scale 1.
/// Throws c10::ValueError if the factor or the bias is not finite. Call `fit_bias` on the result.
TORCHSLIM_API FoldedWeight fold_batch_norm(const at::Tensor& codes, const at::Tensor& weight_scale,
                                           const std::optional<at::Tensor>& bias,
                                           const std::optional<at::Tensor>& gamma,
                                           const std::optional<at::Tensor>& beta, const at::Tensor& mean,
                                           const at::Tensor& var, double eps);

/// Rounds `bias` to the accumulator's grid: rint(bias * (1 / s)) * s with s = input_scale·weight_scale, in float32
/// (QNNPACK's rule). Gradient: straight-through, identity for `bias`, none for the scales. Op: torchslim::round_bias.
///   bias          (O) float32
///   input_scale   one element, float32, > 0
///   weight_scale  (O) float32, > 0
TORCHSLIM_API at::Tensor round_bias(const at::Tensor& bias, const at::Tensor& input_scale,
                                    const at::Tensor& weight_scale);

/// Makes `folded` fit the int32 accumulator and rounds its bias to it (`round_bias`). Two kinds of channel change:
/// an all-zero channel, whose scale is free, gets one that holds its bias to 20 bits; a channel whose scale is so
/// small that the bias would pass 2^30 steps is rounded again to the smallest scale that holds it.
///   input_scale   one element, float32, > 0: the scale of the layer's input
TORCHSLIM_API FoldedWeight fit_bias(const FoldedWeight& folded, const at::Tensor& input_scale);

/// Returns the integers that a trained layer runs with: `quantize_weight`, `fold_batch_norm` (if there is one), then
/// `fit_bias`. The prepared model's eval forward and lowering both call this, so that what trained is what ships.
///   weight       (O, ...) float32
///   bias         (O) float32, or undefined: 0
///   batch_norm   the batch norm after the layer, or empty
///   input_scale  one element, float32, > 0
TORCHSLIM_API FoldedWeight fold_layer(const at::Tensor& weight, const at::Tensor& bias,
                                      const std::optional<BatchNormTensors>& batch_norm, const at::Tensor& input_scale);

/// The same for a weight on another grid of integers, such as one of fewer bits, or with scales that were learned.
///   quantized    codes int8 (O, ...) and scale float32 (O), > 0
TORCHSLIM_API FoldedWeight fold_layer(const QuantizedWeight& quantized, const at::Tensor& bias,
                                      const std::optional<BatchNormTensors>& batch_norm, const at::Tensor& input_scale);

/// Returns `codes * scale` in float32, shape of the codes.
TORCHSLIM_API at::Tensor dequantize_weight(const at::Tensor& codes, const at::Tensor& scale);

}  // namespace torchslim::quant
