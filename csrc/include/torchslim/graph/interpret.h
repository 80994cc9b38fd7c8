// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <vector>

namespace torchslim::graph {

/// Runs `graph` on `input` node by node with ATen's float operations, and torchslim::fake_quantize where a node or
/// weight has a grid. Slow and obvious: what tests compare with. Without gradients.
///   input  float32 (N, ...), the shape of the captured example but for N
/// Returns the value of the last node. Throws c10::ValueError if the shape differs in more than N.
TORCHSLIM_API at::Tensor run_float(const Graph& graph, const at::Tensor& input);

/// Runs one node, not the input, on the values of its inputs. With gradients, where they are on.
///   batch  how many images they are of
TORCHSLIM_API at::Tensor run_node(const Node& node, const std::vector<at::Tensor>& inputs, int64_t batch);

}  // namespace torchslim::graph
