// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/quant/batches.h>
#include <torchslim/quant/gptq.h>

namespace torchslim::quant {

/// Rounds the weights of a prepared, calibrated module by GPTQ, layer by layer in the order data flows: each so that, with the
/// inputs that the layers rounded before it give it, it answers what it answers in float (`gptq` with a drift). Its memory: a
/// copy of the parameters, and one layer's Hessian and drift; each layer runs the batches anew up to itself. Batch norms are
/// left alone: rounding per output channel commutes with them.
///   model     of `quant/layers.h`, in any mode, which it keeps
///   batches   of its inputs; some hundred images
///   options   of each layer; without `bits`, each has the width that it was prepared with
///   progress  hears of each layer
/// Throws c10::ValueError, with the module as it was, if it is not prepared or not calibrated, runs a layer twice, there is no
/// batch or one holds NaN or infinity, and where `gptq` does. See `gptq`.
TORCHSLIM_API void apply_gptq(const RunnableModule& model, const Batches& batches, const GptqOptions& options = {},
                              const Progress& progress = {});

}  // namespace torchslim::quant
