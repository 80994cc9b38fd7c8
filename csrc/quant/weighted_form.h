// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/quant/fold.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/weight_quantizer.h>

#include <functional>
#include <optional>
#include <string>

// The forms that a forward of a convolution or linear layer takes, for drop-in layers and layers of a captured graph.

namespace torchslim::quant::detail {

/// What a prepared layer with a weight runs with.
struct WeightedTensors {
  const at::Tensor& weight;
  const at::Tensor& bias;                             // may be undefined
  const std::optional<BatchNormTensors>& batch_norm;  // empty: none
  const std::string& name;                            // of the layer, for messages
  WeightQuantizerImpl* quantizer;                     // null: the int8 rule

  bool has_codes() const { return quantizer == nullptr || quantizer->options.has_codes(); }
};

/// The layer's own parts, and the state of the quantiser behind it.
struct WeightedParts {
  std::function<at::Tensor(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias)> product;
  std::function<at::Tensor(const at::Tensor& x)> normalize;  // the batch norm, or the identity
  int64_t channel_axis;                                      // of the result; negative: from the end
  bool training;
  bool rounds;             // whether the quantiser rounds
  at::Tensor fixed_scale;  // of its grid, where that stands still; else undefined
};

/// Returns what the layer gives before its activation and quantiser:
///   training      the product with the weight on its grid, then the batch norm with the batch's statistics
///   eval          sums of products of codes, requantised as runtimes do, with the gradient of the folded layer
///   under a trace single operations that `graph::capture` knows
///   quantiser's fake-quantise disabled: plain float
/// Throws c10::ValueError with the layer's name if `x` has no grid or its weights cannot be folded.
at::Tensor run_weighted(const WeightedTensors& layer, const WeightedParts& parts, const QuantTensor& x);

/// What a batch norm behind no layer gives in eval before its quantiser: `layer` has a weight of ones (C, 1, 1, 1).
at::Tensor evaluated(const WeightedTensors& layer, const WeightedParts& parts, const QuantTensor& x);

/// Exactly `value`, with the gradient of `smooth`; that may be undefined.
at::Tensor with_gradient(const at::Tensor& value, const at::Tensor& smooth);

/// Whether a trace is being made.
bool is_tracing();

/// The weight as one fake-quantise node; its scale is a constant there, as it is no parameter.
at::Tensor traced_weight(const WeightedTensors& layer);

}  // namespace torchslim::quant::detail
