// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/quant/batches.h>

namespace torchslim::quant {

/// Moves the ranges of a prepared module's quantisers to those of `batches`, and nothing else: batch norms and dropout run
/// as in eval, without gradients; parameters, running statistics and modes stay as they are, bit for bit. Each quantiser
/// goes on from what it has seen, by its own observer.
///   model     a module that `prepare` has switched to int8, in any mode
///   batches   of its inputs; some hundred images are enough
///   progress  hears of each batch
/// Throws c10::ValueError, with the module as it was, if no quantiser in it observes, there is no batch, or a batch or an
/// activation holds NaN or infinity.
TORCHSLIM_API void calibrate(const RunnableModule& model, const Batches& batches, const Progress& progress = {});

}  // namespace torchslim::quant
