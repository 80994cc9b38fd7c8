// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>
#include <torchslim/graph/capture.h>
#include <torchslim/prune/channel_plan.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace torch::nn {
class Module;
}
namespace torch::optim {
class Optimizer;
}

namespace torchslim::prune {

/// Removes from `model` what `plan` does not keep, in place: filters, biases, batch norm parameters and running
/// statistics, the inputs of the layers that read them, the sizes in the modules' options, gradients, and what
/// `optimizer` (may be null) keeps for the parameters. Parameters stay the same objects, so the optimiser's groups hold
/// them as before.
/// All is checked and all new tensors are made before the first change.
/// Throws c10::ValueError, with nothing changed, if a layer is missing, of another kind or size, or the optimiser's state
/// does not follow its parameters element by element.
TORCHSLIM_API void apply_plan(torch::nn::Module& model, const ChannelPlan& plan,
                              torch::optim::Optimizer* optimizer = nullptr);

struct TORCHSLIM_API ChannelPrunerOptions {
  /// Share of the filters of each chain that a step removes, in [0, 1). Default: half.
  TORCH_ARG(double, ratio) = 0.5;
  /// What makes a filter important. Default: the sum of its magnitudes.
  TORCH_ARG(ChannelCriterion, criterion) = ChannelCriterion::kL1;
  /// Filters are kept in multiples of this many. Default: any number.
  TORCH_ARG(int64_t, round_to) = 1;
  /// Convolutions that keep their filters: dotted names of them, or of modules that they lie under.
  TORCH_ARG(std::vector<std::string>, exclude);
};

/// Makes a network smaller for real: removes the least important filters of its conv → batch norm → ReLU → conv chains
/// (prune/channel_plan.h says which those are) together with all that belongs to them. Filters whose channels meet a
/// residual add are left alone.
class TORCHSLIM_API ChannelPruner {
 public:
  /// `capture` returns the graph of `model` as it is now; `optimizer` (may be null) trains it. All must outlive the
  /// pruner.
  /// Throws c10::ValueError if the optimiser's state does not follow its parameters element by element.
  ChannelPruner(torch::nn::Module& model, std::function<graph::Graph()> capture,
                const ChannelPrunerOptions& options = {}, torch::optim::Optimizer* optimizer = nullptr);

  /// The same for a module holder or shared pointer and an example batch.
  template <typename Model>
  ChannelPruner(Model& model, const at::Tensor& example, const ChannelPrunerOptions& options = {},
                torch::optim::Optimizer* optimizer = nullptr)
      : ChannelPruner(*model, [&model, example] { return graph::capture(model, example); }, options, optimizer) {}

  /// Removes the share `ratio` of the filters that each chain has now.
  /// Throws c10::ValueError, with nothing changed, as plan_channels and apply_plan do.
  void step();

  /// Returns what all steps together have removed; before the first, what it would remove.
  ChannelPlan plan() const;

 private:
  ChannelPlan next_plan() const;

  torch::nn::Module& model_;
  std::function<graph::Graph()> capture_;
  ChannelPlanOptions options_;
  torch::optim::Optimizer* optimizer_;
  ChannelPlan done_;
  bool stepped_ = false;
};

}  // namespace torchslim::prune
