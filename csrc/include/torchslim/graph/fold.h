// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

namespace torchslim::graph {

/// Returns `graph` without batch norms, in float: each goes into the convolution or linear layer before it,
///   f = gamma / sqrt(running_var + eps),  weight·f,  beta + (bias - running_mean)·f,
/// or, if that layer has other readers or there is none, becomes a depthwise 1x1 convolution with weight f; over (N, C), which
/// no convolution takes, it then stays.
/// Computed in float64, rounded once. New tensors keep the name of the one they stand for; `graph` is not changed.
/// Throws c10::ValueError for a graph with fake-quantised values (deploy folds those in integers), and, naming the
/// layer, if a result is not finite.
TORCHSLIM_API Graph fold_batch_norms(const Graph& graph);

}  // namespace torchslim::graph
