// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <cstdint>

// Everything that has one number for each output channel (grids, batch norms, codes) sees a weight with output channels
// first. Transposed convolutions keep theirs with input channels first; this is the one place where that is turned round.

namespace torchslim::graph {

/// Returns the weight of a transposed convolution with output channels first; applied to that, the weight as it was:
///   y[g·O/G + o, i, ...] = w[g·I/G + i, o, ...]   for group g of G
///   weight  (I, O/groups, ...), any dtype, or (O, I/groups, ...) for the way back; gradients pass
/// Throws c10::ValueError if dimension 0 is no multiple of `groups`.
TORCHSLIM_API at::Tensor transposed_weight(const at::Tensor& weight, int64_t groups);

/// Returns the weight of a convolution or linear layer with output channels first: (O, I/groups, ...).
TORCHSLIM_API at::Tensor weight_by_outputs(const Node& node);

}  // namespace torchslim::graph
