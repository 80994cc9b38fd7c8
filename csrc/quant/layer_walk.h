// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/quant/batches.h>
#include <torchslim/quant/layer_geometry.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/weight_grid.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/eval_mode.h"

namespace torchslim::quant {

/// A convolution or linear layer of a prepared module.
struct WalkedLayer {
  QuantWeightLayer* layer;
  std::string name;
  std::string activation;
  at::Tensor weight, bias;  // the module's own; bias may be undefined
  std::optional<BatchNormTensors> batch_norm;
  LayerGeometry geometry;
  bool transposed = false;  // whether it is a transposed convolution

  /// Returns gamma / sqrt(var + eps) of the batch norm, float32 (O), or ones.
  at::Tensor factor() const;
  /// Returns the bias with the batch norm in it, float32 (O).
  at::Tensor folded_bias() const;
};

/// What a layer is given, and what it answers behind its batch norm and before its activation.
struct LayerValues {
  at::Tensor input, output;
};

/// Visits the layers of a prepared module in the order data flows through them. The module is in eval mode, without
/// gradients, for the life of a walk; unless `keep` was called, its parameters and grids are then again what they were at first.
class LayerWalk {
 public:
  using Use = std::function<void(const LayerValues& rounded, const LayerValues& in_float)>;

  /// Runs the first batch to find the order.
  /// Throws c10::ValueError, with `who` in front, if the module holds no layer of `quant/layers.h`, one is not prepared or
  /// not calibrated or is run twice, or there is no batch.
  ///   reference  whose parameters and batch norm statistics the float module has, by name; null: those that the module has
  ///              at first
  LayerWalk(const char* who, const RunnableModule& model, const Batches& batches,
            const torch::nn::Module* reference = nullptr);
  LayerWalk(const LayerWalk&) = delete;
  LayerWalk& operator=(const LayerWalk&) = delete;
  ~LayerWalk();

  const std::vector<WalkedLayer>& layers() const { return layers_; }

  /// Calls `use` for each batch with the values of `layer` in the module as it is now and in the float one: with the
  /// parameters that the module had at first, or those of the reference, and no rounding.
  void for_each_batch(const WalkedLayer& layer, const Use& use) const;

  /// Throws c10::ValueError unless the weight of every layer lies on a grid that holds codes of that many bits; empty: of
  /// those that it was prepared with.
  void check_bits(std::optional<int64_t> bits) const;

  /// Returns `bits`, or the width of codes that the weight of `layer` was prepared with.
  static int64_t bits_of(const WalkedLayer& layer, std::optional<int64_t> bits = std::nullopt);

  /// Gives `layer` a rounded weight, and keeps its grid.
  void put_weight(const WalkedLayer& layer, const GridWeight& rounded);

  /// Lets the parameters stay as they are now.
  void keep() { kept_ = true; }

 private:
  class InFloat;

  void take_floats_of(const torch::nn::Module& reference);
  static void set_grid(QuantWeightLayer& layer, const WeightQuantizer& grid);
  LayerValues values_of(const WalkedLayer& layer, const at::Tensor& batch) const;

  const char* who_;
  const RunnableModule& model_;
  const Batches& batches_;
  at::NoGradGuard no_grad_;
  core::EvalMode eval_;
  std::vector<WalkedLayer> layers_;
  std::vector<std::pair<at::Tensor, at::Tensor>> first_;              // a parameter, its values at first
  std::vector<std::pair<at::Tensor, at::Tensor>> floats_;             // a tensor, its values in the float module
  std::vector<std::pair<QuantWeightLayer*, WeightQuantizer>> grids_;  // of layers that got another, what they had
  bool kept_ = false;
};

}  // namespace torchslim::quant
