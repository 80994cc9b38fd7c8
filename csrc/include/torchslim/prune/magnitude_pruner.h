// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/arg.h>
#include <torch/csrc/api/include/torch/ordered_dict.h>
#include <torchslim/api.h>
#include <torchslim/prune/magnitude_masks.h>

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

/// What a pruner takes: from the number of optimiser steps taken to the sparsity to have then, in [0, 1].
using Schedule = std::function<double(int64_t)>;

struct TORCHSLIM_API MagnitudePrunerOptions {
  /// What a share of zeros is taken of. Default: all weights together.
  TORCH_ARG(Scope, scope) = Scope::kGlobal;
  /// Layers not to prune: dotted names of layers, or of modules that layers lie under.
  TORCH_ARG(std::vector<std::string>, exclude);
  /// The only layers to prune, named likewise. Default: all.
  TORCH_ARG(std::vector<std::string>, names);
};

/// Prunes the weights of a model by magnitude while it trains. Prunable is the `weight` of every Conv1d, Conv2d, Conv3d
/// and Linear, first and last layer included, also of subclasses and inside drop-in layers; biases are not.
///
/// Call `step()` after each `optimizer.step()`. When the schedule asks for more sparsity, the smallest of the current
/// weights are pruned; what is pruned stays pruned. After every call pruned weights, their gradients and what the
/// optimiser keeps for them (momentum, moments) are exactly +0.
class TORCHSLIM_API MagnitudePruner {
 public:
  /// The pruner shares the model's weights and refers to `optimizer`, which must outlive it.
  /// Throws c10::ValueError if no layer can be pruned, a name is unknown (with the nearest), the optimiser's state does
  /// not follow its parameters element by element, or it holds none of these weights.
  MagnitudePruner(torch::nn::Module& model, Schedule schedule, const MagnitudePrunerOptions& options = {});
  MagnitudePruner(torch::nn::Module& model, Schedule schedule, torch::optim::Optimizer& optimizer,
                  const MagnitudePrunerOptions& options = {});

  /// Counts an optimiser step, tightens the masks if the schedule asks for it and applies them.
  /// Throws c10::ValueError, with nothing counted and no mask changed, for NaN among the weights or a sparsity outside
  /// [0, 1]; c10::Error after `finalize`.
  void step();

  /// Returns the share of prunable weights that is pruned, 0 before the first.
  double sparsity() const;

  /// Returns the same for each layer, in the model's order.
  torch::OrderedDict<std::string, double> layer_sparsity() const;

  /// Applies the masks once more, lets go of the optimiser and returns the sparsity. The zeros are the model's from then
  /// on; training it further would fill them.
  double finalize();

  /// Returns copies of what a new pruner needs to go on to the same bits: "step", "sparsity", "masks.<layer>".
  torch::OrderedDict<std::string, at::Tensor> state_dict() const;

  /// Takes over what `state_dict` of a pruner of the same layers returned; weights are not touched.
  /// Throws c10::ValueError, with nothing changed, for missing or unknown keys and wrong shapes or dtypes.
  void load_state_dict(const torch::OrderedDict<std::string, at::Tensor>& state);

 private:
  MagnitudePruner(torch::nn::Module& model, Schedule schedule, torch::optim::Optimizer* optimizer,
                  const MagnitudePrunerOptions& options);
  void tighten(double target);
  void apply() const;

  Schedule schedule_;
  torch::optim::Optimizer* optimizer_;
  Scope scope_;
  std::vector<std::string> layers_;
  std::vector<at::Tensor> weights_;
  std::vector<at::Tensor> masks_;  // none until something is pruned
  int64_t step_ = 0;
  double target_ = 0.0;  // of the masks
  bool finalized_ = false;
};

}  // namespace torchslim::prune
