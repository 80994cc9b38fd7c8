// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/optimizer.h>
#include <torchslim/prune/apply_masks.h>
#include <torchslim/prune/magnitude_pruner.h>

#include <algorithm>
#include <utility>

#include "prune/layer_names.h"
#include "prune/optimizer_state.h"

namespace torchslim::prune {
namespace {

constexpr const char* kPruner = "MagnitudePruner";

struct PrunableLayer {
  std::string name;
  at::Tensor weight;
};

template <typename... Layers>
at::Tensor weight_if_one_of(torch::nn::Module& module) {
  at::Tensor weight;
  const auto take = [&](auto* layer) {
    if (layer != nullptr) {
      weight = layer->weight;
    }
  };
  (take(dynamic_cast<Layers*>(&module)), ...);
  return weight;
}

// A weight that two layers share is listed once, under its first name.
std::vector<PrunableLayer> prunable_layers(torch::nn::Module& model) {
  std::vector<PrunableLayer> layers;
  const auto add = [&](const std::string& name, torch::nn::Module& module) {
    using namespace torch::nn;
    const auto weight = weight_if_one_of<Conv1dImpl, Conv2dImpl, Conv3dImpl, LinearImpl>(module);
    const bool known =
        std::any_of(layers.begin(), layers.end(), [&](const auto& layer) { return layer.weight.is_same(weight); });
    if (weight.defined() && !known) {
      layers.push_back({name, weight});
    }
  };
  add("", model);
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    add(item.key(), *item.value());
  }
  return layers;
}

std::string mask_key(const std::string& layer) { return "masks." + layer; }

void check_holds_weights(torch::optim::Optimizer& optimizer, const std::vector<at::Tensor>& weights) {
  for (const auto& group : optimizer.param_groups()) {
    for (const auto& parameter : group.params()) {
      if (std::any_of(weights.begin(), weights.end(), [&](const auto& weight) { return weight.is_same(parameter); })) {
        return;
      }
    }
  }
  TORCH_CHECK_VALUE(false, "torchslim::", kPruner, ": the optimiser holds none of the ", weights.size(),
                    " weights to prune; make it from the parameters of this model");
}

}  // namespace

MagnitudePruner::MagnitudePruner(torch::nn::Module& model, Schedule schedule, const MagnitudePrunerOptions& options)
    : MagnitudePruner(model, std::move(schedule), nullptr, options) {}

MagnitudePruner::MagnitudePruner(torch::nn::Module& model, Schedule schedule, torch::optim::Optimizer& optimizer,
                                 const MagnitudePrunerOptions& options)
    : MagnitudePruner(model, std::move(schedule), &optimizer, options) {}

MagnitudePruner::MagnitudePruner(torch::nn::Module& model, Schedule schedule, torch::optim::Optimizer* optimizer,
                                 const MagnitudePrunerOptions& options)
    : schedule_(std::move(schedule)), optimizer_(optimizer), scope_(options.scope()) {
  const auto layers = prunable_layers(model);
  std::vector<std::string> names;
  for (const auto& layer : layers) {
    names.push_back(layer.name);
  }
  layers_ = detail::select_layers(kPruner, names, options.names(), options.exclude());
  for (const auto& layer : layers) {
    if (std::find(layers_.begin(), layers_.end(), layer.name) != layers_.end()) {
      weights_.push_back(layer.weight);
    }
  }
  if (optimizer_ != nullptr) {
    detail::check_optimizer(kPruner, *optimizer_);
    check_holds_weights(*optimizer_, weights_);
  }
}

void MagnitudePruner::step() {
  TORCH_CHECK(!finalized_, "torchslim::", kPruner, ".step: the pruner is finalised; make a new one to prune further");
  const double target = schedule_(step_ + 1);
  TORCH_CHECK_VALUE(target >= 0.0 && target <= 1.0, "torchslim::", kPruner,
                    ".step: the schedule must return a sparsity in [0, 1], got ", target, " at step ", step_ + 1);
  if (target > target_) {
    tighten(target);
  }
  ++step_;
  apply();
}

void MagnitudePruner::tighten(double target) {
  if (masks_.empty()) {
    masks_ = magnitude_masks(weights_, target, scope_, layers_);
  } else {
    apply_masks_(weights_, masks_);
    masks_ = detail::tighten_masks(weights_, masks_, target, scope_, layers_);
  }
  target_ = target;
}

void MagnitudePruner::apply() const {
  if (masks_.empty()) {
    return;
  }
  std::vector<at::Tensor> tensors;
  std::vector<at::Tensor> masks;
  const auto add = [&](const at::Tensor& tensor, const at::Tensor& mask) {
    tensors.push_back(tensor);
    masks.push_back(mask);
  };
  for (size_t i = 0; i < weights_.size(); ++i) {
    TORCH_CHECK_VALUE(weights_[i].sizes() == masks_[i].sizes(), "torchslim::", kPruner, ": the weight of `", layers_[i],
                      "` has the shape ", weights_[i].sizes(), ", its mask ", masks_[i].sizes(),
                      "; make a new pruner after removing channels");
    add(weights_[i], masks_[i]);
    if (weights_[i].grad().defined()) {
      add(weights_[i].grad(), masks_[i]);
    }
    if (optimizer_ != nullptr) {
      for (const auto* state : detail::state_tensors(*optimizer_, weights_[i])) {
        add(*state, masks_[i]);
      }
    }
  }
  apply_masks_(tensors, masks);
}

double MagnitudePruner::sparsity() const {
  int64_t total = 0;
  int64_t kept = 0;
  for (const auto& mask : masks_) {
    total += mask.numel();
    kept += mask.sum().item<int64_t>();
  }
  return total == 0 ? 0.0 : static_cast<double>(total - kept) / static_cast<double>(total);
}

torch::OrderedDict<std::string, double> MagnitudePruner::layer_sparsity() const {
  torch::OrderedDict<std::string, double> sparsities("layer");
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto total = weights_[i].numel();
    const auto kept = masks_.empty() ? total : masks_[i].sum().item<int64_t>();
    sparsities.insert(layers_[i], total == 0 ? 0.0 : static_cast<double>(total - kept) / static_cast<double>(total));
  }
  return sparsities;
}

double MagnitudePruner::finalize() {
  if (!finalized_) {
    apply();
    finalized_ = true;
    optimizer_ = nullptr;
  }
  return sparsity();
}

torch::OrderedDict<std::string, at::Tensor> MagnitudePruner::state_dict() const {
  torch::OrderedDict<std::string, at::Tensor> state;
  state.insert("step", at::scalar_tensor(step_, at::kLong));
  state.insert("sparsity", at::scalar_tensor(target_, at::kDouble));
  for (size_t i = 0; i < masks_.size(); ++i) {
    state.insert(mask_key(layers_[i]), masks_[i].clone());
  }
  return state;
}

void MagnitudePruner::load_state_dict(const torch::OrderedDict<std::string, at::Tensor>& state) {
  constexpr const char* kLoad = ".load_state_dict: ";
  const auto take = [&](const std::string& key) {
    const auto* value = state.find(key);
    TORCH_CHECK_VALUE(value != nullptr, "torchslim::", kPruner, kLoad, "`", key,
                      "` is missing; the state must come from a pruner of the same layers");
    return *value;
  };
  const auto scalar = [&](const std::string& key) {
    const auto value = take(key);
    TORCH_CHECK_VALUE(value.numel() == 1, "torchslim::", kPruner, kLoad, "`", key, "` must be one number, got shape ",
                      value.sizes());
    return value;
  };
  const auto step = scalar("step").item<int64_t>();
  const auto target = scalar("sparsity").item<double>();
  TORCH_CHECK_VALUE(step >= 0 && target >= 0.0 && target <= 1.0, "torchslim::", kPruner, kLoad,
                    "expected `step` >= 0 and `sparsity` in [0, 1], got ", step, " and ", target);
  std::vector<at::Tensor> masks;
  for (size_t i = 0; i < layers_.size() && state.size() > 2; ++i) {
    const auto key = mask_key(layers_[i]);
    const auto mask = take(key);
    TORCH_CHECK_VALUE(mask.scalar_type() == at::kBool && mask.sizes() == weights_[i].sizes(), "torchslim::", kPruner,
                      kLoad, "`", key, "` must be bool of shape ", weights_[i].sizes(), ", got ",
                      c10::toString(mask.scalar_type()), " of shape ", mask.sizes());
    // In the memory order of the weight, which apply_masks_ is fast for.
    masks.push_back(at::empty_like(weights_[i], weights_[i].options().dtype(at::kBool)).copy_(mask));
  }
  TORCH_CHECK_VALUE(state.size() == 2 + masks.size(), "torchslim::", kPruner, kLoad, "expected ", 2 + masks.size(),
                    " entries, got ", state.size(), "; the state must come from a pruner of the same layers");
  step_ = step;
  target_ = target;
  masks_ = std::move(masks);
}

}  // namespace torchslim::prune
