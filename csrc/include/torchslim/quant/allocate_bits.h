// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstdint>
#include <string>
#include <vector>

namespace torchslim::quant {

/// One way to store a layer: what it costs (bytes, multiplications times bits, ...) and what harm it does.
struct TORCHSLIM_API BitChoice {
  int64_t cost = 0;
  double damage = 0;
};

/// The ways to store one layer, of which one is taken.
struct TORCHSLIM_API LayerChoices {
  std::string layer;
  std::vector<BitChoice> choices;
};

/// What was taken: `choice[i]` is an index into the choices of layer i.
struct TORCHSLIM_API BitAllocation {
  std::vector<int64_t> choice;
  int64_t cost = 0;   // sum over layers
  double damage = 0;  // sum over layers, in their order
  /// A proof: nothing within the limit can do better than this (the linear relaxation, by Lagrange's multiplier). A bound on
  /// the damage for `allocate_bits`, on the cost for `allocate_bits_within`.
  double bound = 0;
};

/// How to search: "exact" gives the best there is; "greedy" takes what helps most for its cost while it fits, in no time.
enum class BitSearch { kExact, kGreedy };

/// Takes one choice for each layer so that Σ cost ≤ budget and Σ damage is least; of equals the cheapest.
///   layers  each with one choice or more; costs ≥ 0, their sum below 2^53; damages finite, negative ones too
///   budget  ≥ Σ of the least costs
/// Exact: dynamic programming over the layers, which keeps of all partial sums those that no other beats in both, and drops
/// those whose linear relaxation cannot reach what greedy found (Sinha and Zoltners 1979, Dyer 1984).
/// Throws c10::ValueError on what does not hold, naming the layer, and where 2^24 partial sums do not suffice.
TORCHSLIM_API BitAllocation allocate_bits(const std::vector<LayerChoices>& layers, int64_t budget,
                                          BitSearch search = BitSearch::kExact);

/// Takes one choice for each layer so that Σ damage ≤ most_damage and Σ cost is least; of equals the least damage.
TORCHSLIM_API BitAllocation allocate_bits_within(const std::vector<LayerChoices>& layers, double most_damage,
                                                 BitSearch search = BitSearch::kExact);

/// Returns allocations from the cheapest on, each with less damage than those before it, none of which any allocation beats in
/// both: the corners of the convex front, Σ (choices − 1) + 1 at most.
TORCHSLIM_API std::vector<BitAllocation> pareto_front(const std::vector<LayerChoices>& layers);

}  // namespace torchslim::quant
