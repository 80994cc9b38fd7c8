// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/graph/graph.h>

namespace torchslim::graph {

/// Returns `x` on `grid` by op torchslim::fake_quantize, or `x` itself without a grid.
at::Tensor fake_quantized(const at::Tensor& x, const std::optional<Grid>& grid);

/// Returns the weight of `node`, a convolution or linear layer, on its grid if it has one.
at::Tensor fake_quantized_weight(const Node& node);

}  // namespace torchslim::graph
