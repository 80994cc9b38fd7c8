// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/quant/batches.h>

namespace torchslim::quant {

/// Sets the running statistics of all batch norms to the mean of the statistics of `batches`, each batch counting once.
/// After training they lag behind the weights, and in a prepared module behind the rounding of the weights. All else runs
/// as in eval, without gradients, on the weights' grids; ranges, parameters and modes stay as they are.
/// Several passes of training batches' size are best: the mean is over batches, as in training.
///   model     a prepared module, or a float one
///   batches   of its inputs
///   progress  hears of each batch
/// Throws c10::ValueError, with the module as it was, if it has no batch norm with running statistics, there is no batch, a
/// batch is too small for statistics or holds NaN or infinity. Jacob et al. 2018, arXiv:1712.05877, section 3.2; Sun et al.
/// 2019, arXiv:1909.12326 (precise statistics).
TORCHSLIM_API void reestimate_batch_norm(const RunnableModule& model, const Batches& batches,
                                         const Progress& progress = {});

}  // namespace torchslim::quant
