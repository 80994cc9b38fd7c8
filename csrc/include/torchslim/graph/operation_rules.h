// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <cstdint>
#include <string>
#include <vector>

// What becomes of each kind of operation when a network goes onto grids. The one table that `quant.prepare` follows in both
// languages, and lowering after it.

namespace torchslim::graph {

/// Which grid the result of an operation lies on.
enum class GridRule {
  kOwn,    // one of its own, by a quantiser behind it
  kInput,  // that of its input; in float behind what stays in float
  kFloat,  // none: it runs in float, and what reads it on a grid rounds it first
};

/// The rule of one kind of operation.
struct TORCHSLIM_API OperationRule {
  const char* kind;  // "conv", "linear", "add", "move", ...; the names that configs use
  GridRule grid;
  bool takes_batch_norm;  // whether a batch norm that alone reads it becomes part of it
  bool takes_activation;  // whether a ReLU or ReLU6 that alone reads it becomes part of it
};

/// Returns the table. Kinds: input, border, conv, linear, batch_norm, add, mul, concat, arithmetic, function, relu, relu6,
/// adaptive_avg_pool, mean, avg_pool, max_pool, flatten, move, dropout; "" is what has no integer form.
TORCHSLIM_API const std::vector<OperationRule>& operation_rules();

/// Returns the rule of `kind`; throws c10::ValueError for a name that is not in the table.
TORCHSLIM_API const OperationRule& operation_rule(const std::string& kind);

/// Whether integers have this form of an operation:
///   add         two tensors of one shape
///   mul         two tensors of one shape, or an image (N, C, H, W) and a factor (N, C, 1, 1)
///   batch_norm  of images (N, C, H, W)
///   avg_pool    of images or (N, C, L), every window counting all of its places
///   mean, adaptive_avg_pool  over the whole image or length
/// and all of other kinds that have a grid.
///   inputs  shapes of what it reads      output  shape of its result      window  of an average pool
TORCHSLIM_API bool has_integer_form(const std::string& kind, const std::vector<std::vector<int64_t>>& inputs,
                                    const std::vector<int64_t>& output, const Window& window = {});

/// Whether a batch norm that alone reads `node` becomes part of it: behind convolutions, and linear layers to (N, features).
TORCHSLIM_API bool takes_batch_norm(const Node& node);

/// Returns the kind that node `index` has in the table: "" where integers do not have its form.
TORCHSLIM_API std::string operation_kind(const Graph& graph, int64_t index);

}  // namespace torchslim::graph
