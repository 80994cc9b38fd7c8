// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>
#include <torchslim/quant/adaround.h>
#include <torchslim/quant/batches.h>

#include <cstdint>

namespace torchslim::quant {

/// Rounds the weights of a prepared, calibrated module by AdaRound, layer by layer in the order data flows: each so that, with
/// the inputs that the layers rounded before it give it, it answers what it answers in float, behind its batch norm and
/// activation. Its memory: a copy of the parameters, and `max_bytes` of one layer's rows; each layer runs the batches anew up
/// to itself. Batch norms are left alone: rounding per output channel commutes with them.
///   model      of `quant/layers.h`, in any mode, which it keeps
///   batches    of its inputs; some hundred images
///   options    of each layer; the activation is the layer's own, and without `bits` the width that it was prepared with
///   max_bytes  as for `LayerSamples`
///   progress   hears of steps: of all layers together
/// Throws c10::ValueError, with the module as it was, if it is not prepared or not calibrated, runs a layer twice, there is no
/// batch or one holds NaN or infinity, and where `adaround` does. See `adaround`.
TORCHSLIM_API void apply_adaround(const RunnableModule& model, const Batches& batches,
                                  const AdaroundOptions& options = {}, int64_t max_bytes = int64_t{256} << 20,
                                  const Progress& progress = {});

}  // namespace torchslim::quant
