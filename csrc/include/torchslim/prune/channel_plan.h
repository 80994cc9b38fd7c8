// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <cstdint>
#include <string>
#include <vector>

namespace torchslim::prune {

/// A layer that reads the channels of a chain.
struct TORCHSLIM_API ChannelConsumer {
  std::string layer;   // dotted name of a conv2d or linear
  int64_t repeat = 1;  // inputs in a row that one channel feeds: pixels, after a flatten
  bool linear = false;
};

/// The filters of one convolution and all that goes with them: filter i makes channel i, which the batch norms and
/// depthwise convolutions carry on, each to its own channel i, until the consumers mix it with others.
struct TORCHSLIM_API ChannelChain {
  std::string layer;  // dotted name of the convolution
  int64_t channels = 0;
  std::vector<std::string> batch_norms;
  std::vector<std::string> depthwise;
  std::vector<ChannelConsumer> consumers;
};

/// Returns the chains of `graph` whose filters can be removed, in the order they run. A convolution of one group starts
/// one if its channels reach nothing but batch norms, ReLU, ReLU6, fake-quantise per tensor, pools, flatten and depthwise
/// convolutions before they end in convolutions of one group and linears. Channels that meet an add, grouped
/// convolution or the end of the network stay, and so do those of layers that share tensors or run twice.
TORCHSLIM_API std::vector<ChannelChain> find_channel_chains(const graph::Graph& graph);

/// A chain and the filters of it that stay, ascending.
struct TORCHSLIM_API ChannelCut {
  ChannelChain chain;
  std::vector<int64_t> keep;
};

/// What to remove from a network. It names layers only, so it also fits a fresh model of the same form.
struct TORCHSLIM_API ChannelPlan {
  std::vector<ChannelCut> cuts;
};

/// What makes a filter important: the sum of its magnitudes, the root of its sum of squares, or the magnitude of the
/// scale gamma that the chain's first batch norm gives it (Liu et al. 2017, arXiv:1708.06519).
enum class ChannelCriterion { kL1, kL2, kBatchNorm };

struct TORCHSLIM_API ChannelPlanOptions {
  double ratio = 0.5;  // share of the filters of each chain to remove, in [0, 1)
  ChannelCriterion criterion = ChannelCriterion::kL1;
  int64_t round_to = 1;              // keep a multiple of this many, or all
  std::vector<std::string> exclude;  // convolutions that keep their filters, or modules over them
};

/// Returns the plan that removes from each chain of `graph` the share `ratio` of its filters, the least important ones;
/// of equal ones the first. What stays is rounded up to a multiple of `round_to` and is at least one filter.
/// Throws c10::ValueError for an option out of range, a name in `exclude` that no chain has (with the nearest), a graph
/// without chains, NaN among the scores, or a chain without batch norm where the criterion needs one.
TORCHSLIM_API ChannelPlan plan_channels(const graph::Graph& graph, const ChannelPlanOptions& options = {});

/// Returns the plan whose effect is that of `first`, then `second`.
/// Throws c10::ValueError if `second` does not fit a network that `first` was applied to.
TORCHSLIM_API ChannelPlan compose(const ChannelPlan& first, const ChannelPlan& second);

/// Returns the plan as JSON: {"format": "torchslim.channel_plan", "version": 1, "cuts": [...]}.
TORCHSLIM_API std::string to_json(const ChannelPlan& plan);

/// Reads what `to_json` wrote. Throws c10::ValueError, saying where, for anything else: another format or version, a
/// missing or unknown field, filters that are not ascending or out of range.
TORCHSLIM_API ChannelPlan channel_plan_from_json(const std::string& json);

namespace detail {

/// What a plan does to one layer. An empty `keep_*` leaves that dimension alone.
struct LayerCut {
  enum class Kind { kConv2d, kDepthwise, kLinear, kBatchNorm2d };
  std::string layer;
  Kind kind = Kind::kConv2d;
  int64_t outputs = 0;  // before the cut
  std::vector<int64_t> keep_outputs;
  int64_t inputs = 0;  // before the cut; conv2d and linear only
  std::vector<int64_t> keep_inputs;
};

/// Returns the plan by layer: one entry each, although a layer may end one chain and start another.
TORCHSLIM_API std::vector<LayerCut> cuts_by_layer(const ChannelPlan& plan);

/// Returns the name of `kind`, such as "conv2d".
TORCHSLIM_API const char* to_string(LayerCut::Kind kind);

}  // namespace detail
}  // namespace torchslim::prune
