// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>
#include <torchslim/quant/allocate_bits.h>
#include <torchslim/quant/sensitivity.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace torchslim::quant {

/// How many bits the weights of one layer get.
struct TORCHSLIM_API LayerBits {
  std::string layer;
  int64_t bits = 8;
};

/// Bits for each layer, and what they come to.
struct TORCHSLIM_API BitPlan {
  std::vector<LayerBits> layers;
  int64_t bytes = 0;     // exact: Σ ⌈weights · bits / 8⌉ + 4 · channels, the codes and their scales
  int64_t mac_bits = 0;  // exact: Σ multiply-accumulates · bits · activation bits; 0 where they were not counted
  double predicted = 0;  // of `evaluate`: the baseline less the layers' damages, as if they added up
  double bound = 0;  // nothing within the limit can be predicted to be better (with `floor`: can cost less) than this
};

/// Options for `search`: one limit of the three.
struct TORCHSLIM_API SearchOptions {
  /// At most so many bytes for the weights, as BitPlan counts them.
  TORCH_ARG(std::optional<int64_t>, bytes) = std::nullopt;
  /// At most so many multiply-accumulates × bits × activation bits; the sensitivity must have counted them.
  TORCH_ARG(std::optional<int64_t>, mac_bits) = std::nullopt;
  /// The prediction must not be worse than this; the fewest bytes are searched.
  TORCH_ARG(std::optional<double>, floor) = std::nullopt;
  /// kExact (the default), or kGreedy.
  TORCH_ARG(BitSearch, search) = BitSearch::kExact;
  /// Bits of the activations, for `mac_bits`. Default: 8.
  TORCH_ARG(int64_t, activation_bits) = 8;
};

/// Chooses bits for each layer so that the predicted damage is least within a limit of bytes or of multiplications, or the bytes
/// are fewest within a limit of damage: `allocate_bits`.
/// Throws c10::ValueError unless one limit is given and can be met, naming what can be had.
TORCHSLIM_API BitPlan search(const Sensitivity& sensitivity, const SearchOptions& options);

/// Returns plans from the fewest bytes on, each predicted to be better than those before it, none of which any plan beats in both
/// (`pareto_front`).
TORCHSLIM_API std::vector<BitPlan> search_front(const Sensitivity& sensitivity, int64_t activation_bits = 8);

}  // namespace torchslim::quant
