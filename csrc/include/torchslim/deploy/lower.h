// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/graph/graph.h>

namespace torchslim::deploy {

/// Turns the captured graph of a prepared model in eval mode into integers. Weights, biases and batch norms become what
/// the prepared model's eval forward uses (`quant::fold_layer`); activation grids are the trained ones, never observed
/// again. ReLU and ReLU6 become bounds of the layer before them.
///   graph  as `graph::capture` returns it: every convolution, linear and addition ends in a fake_quantize
///
/// Throws c10::ValueError, naming the layer and what to do, where
/// - a convolution, linear or addition reads or yields floats, or a weight has no int8 grid;
/// - a scale is below 2^-12 or not finite, a weight or statistic is NaN or infinite;
/// - a pool's result has another grid than its input;
/// - an int32 sum could overflow, or the scales of an addition are further apart than runtimes allow
///   (input scale / output scale in [2^-14, 2^8), the larger at least 2^-10).
/// What one runtime alone cannot do is no matter here: `fit_target` says it, and the writers ask that.
TORCHSLIM_API IntegerGraph lower(const graph::Graph& graph);

}  // namespace torchslim::deploy
