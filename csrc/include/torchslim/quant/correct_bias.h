// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/quant/batches.h>

#include <string>
#include <vector>

namespace torchslim::quant {

/// Makes up for what rounding does to the mean of each output channel: layer by layer in the order data flows, adds
///   E[y in float] − E[y rounded],  y behind the batch norm and before the activation, over batches and positions,
/// to its batch norm's beta or, if there is none, to its bias. Layers before it are rounded, and corrected already.
///   model      of `quant/layers.h`, prepared and calibrated, in any mode, which it keeps
///   batches    of its inputs; some hundred images
///   progress   hears of each layer
///   reference  the network in float, such as a copy from before `prepare`, where the weights of `model` were rounded since
///              (`apply_gptq`, `apply_adaround`): parameters and batch norm statistics are taken by name; null: `model` as it is
/// Returns the names of the layers left as they are, as they have neither beta nor bias (or only a bias before a batch norm that
/// is 0 in some channel). Throws c10::ValueError, with the module as it was, if it is not prepared or not calibrated, runs a layer
/// twice, there is no batch or one holds NaN or infinity, or the reference is another network or shares its weights.
/// Nagel et al. 2019, arXiv:1906.04721, appendix D.
TORCHSLIM_API std::vector<std::string> correct_bias(const RunnableModule& model, const Batches& batches,
                                                    const Progress& progress = {},
                                                    const torch::nn::Module* reference = nullptr);

}  // namespace torchslim::quant
