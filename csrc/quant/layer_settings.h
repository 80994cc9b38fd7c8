// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>
#include <torchslim/quant/layers.h>

#include <memory>
#include <string>

// From `PrepareOptions` to the quantisers of one layer.

namespace torchslim::quant::detail {

/// One of the two kinds of quantisers of activations.
struct ActivationQuantizer {
  FakeQuantize following{nullptr};     // whose grid follows what it sees
  LearnedActivation learned{nullptr};  // in its place

  std::shared_ptr<torch::nn::Module> module() const;
};

/// Whether the layer stays in float; throws c10::ValueError if it is given bits as well.
bool stays_in_float(const std::string& layer, const LayerOptions& own);

/// Returns `wide` with what `own` says otherwise.
LayerOptions merged(const LayerOptions& wide, const LayerOptions& own);

/// Returns a new quantiser with `activation` in it; throws c10::ValueError, naming the layer, for options that make no sense.
ActivationQuantizer make_activation_quantizer(const std::string& layer, const LayerOptions& own,
                                              const PrepareOptions& options, Activation activation);

/// Returns a new quantiser of `weight`; empty: the int8 rule, which needs none. Throws as above.
WeightQuantizer make_weight_quantizer(const std::string& layer, const LayerOptions& own, const PrepareOptions& options,
                                      const at::Tensor& weight);

}  // namespace torchslim::quant::detail
