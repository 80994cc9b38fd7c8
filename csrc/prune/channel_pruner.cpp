// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/optimizer.h>
#include <torchslim/prune/channel_pruner.h>

#include <utility>

#include "prune/optimizer_state.h"
#include "prune/replace_data.h"

namespace torchslim::prune {
namespace {

using detail::LayerCut;
using Kind = detail::LayerCut::Kind;

// One tensor of the model and what it becomes; nothing in here changes the model until `commit`.
struct TensorChange {
  at::Tensor tensor;
  at::Tensor data;
  at::Tensor grad;
  std::vector<std::pair<at::Tensor*, at::Tensor>> states;

  void commit() {
    detail::replace_data(tensor, data);
    if (grad.defined()) {
      tensor.mutable_grad() = grad;
    }
    for (auto& [state, value] : states) {
      *state = value;
    }
  }
};

at::Tensor take(const at::Tensor& tensor, int64_t dim, const std::vector<int64_t>& keep) {
  const auto indices = at::tensor(at::ArrayRef<int64_t>(keep)).to(tensor.device());
  return at::index_select(tensor, dim, indices).contiguous(tensor.suggest_memory_format());
}

// Collects the changes that a plan makes to a model, checking each layer against it.
class Surgeon {
 public:
  Surgeon(torch::nn::Module& model, torch::optim::Optimizer* optimizer)
      : modules_(model.named_modules("", /*include_self=*/false)), optimizer_(optimizer) {}

  void prepare(const LayerCut& cut) {
    switch (cut.kind) {
      case Kind::kConv2d:
      case Kind::kDepthwise:
        return prepare_conv(cut, find<torch::nn::Conv2dImpl>(cut));
      case Kind::kLinear:
        return prepare_linear(cut, find<torch::nn::LinearImpl>(cut));
      case Kind::kBatchNorm2d:
        return prepare_batch_norm(cut, find<torch::nn::BatchNorm2dImpl>(cut));
    }
  }

  void commit() {
    for (auto& change : tensors_) {
      change.commit();
    }
    for (const auto& set : options_) {
      set();
    }
  }

 private:
  template <typename Layer>
  Layer& find(const LayerCut& cut) const {
    const auto* module = modules_.find(cut.layer);
    TORCH_CHECK_VALUE(module != nullptr, "torchslim::apply_plan: the model has no layer `", cut.layer,
                      "`; the plan was made for another network");
    auto* layer = dynamic_cast<Layer*>(module->get());
    TORCH_CHECK_VALUE(layer != nullptr, "torchslim::apply_plan: `", cut.layer, "` must be a ", to_string(cut.kind),
                      ", got ", (*module)->name());
    return *layer;
  }

  void prepare_conv(const LayerCut& cut, torch::nn::Conv2dImpl& conv) {
    const bool depthwise = cut.kind == Kind::kDepthwise;
    check_size(cut, "groups", conv.options.groups(), depthwise ? cut.outputs : 1);
    check_size(cut, "filters", conv.weight.size(0), cut.outputs, cut.keep_outputs);
    check_size(cut, "inputs", conv.weight.size(1), cut.inputs, cut.keep_inputs);
    change(conv.weight, cut.keep_outputs, cut.keep_inputs);
    change(conv.bias, cut.keep_outputs);
    options_.push_back([&conv, cut, depthwise] {
      if (!cut.keep_outputs.empty()) {
        conv.options.out_channels(static_cast<int64_t>(cut.keep_outputs.size()));
      }
      if (depthwise) {
        conv.options.in_channels(static_cast<int64_t>(cut.keep_outputs.size()));
        conv.options.groups(static_cast<int64_t>(cut.keep_outputs.size()));
      } else if (!cut.keep_inputs.empty()) {
        conv.options.in_channels(static_cast<int64_t>(cut.keep_inputs.size()));
      }
    });
  }

  void prepare_linear(const LayerCut& cut, torch::nn::LinearImpl& linear) {
    check_size(cut, "inputs", linear.weight.size(1), cut.inputs, cut.keep_inputs);
    change(linear.weight, {}, cut.keep_inputs);
    options_.push_back([&linear, cut] { linear.options.in_features(static_cast<int64_t>(cut.keep_inputs.size())); });
  }

  void prepare_batch_norm(const LayerCut& cut, torch::nn::BatchNorm2dImpl& norm) {
    check_size(cut, "features", norm.options.num_features(), cut.outputs, cut.keep_outputs);
    for (const auto& tensor : {norm.weight, norm.bias, norm.running_mean, norm.running_var}) {
      change(tensor, cut.keep_outputs);
    }
    options_.push_back([&norm, cut] { norm.options.num_features(static_cast<int64_t>(cut.keep_outputs.size())); });
  }

  static void check_size(const LayerCut& cut, const char* what, int64_t got, int64_t expected) {
    TORCH_CHECK_VALUE(got == expected, "torchslim::apply_plan: the plan was made for a `", cut.layer, "` with ",
                      expected, " ", what, ", the model's has ", got);
  }

  // Only what is cut has a size in the plan.
  static void check_size(const LayerCut& cut, const char* what, int64_t got, int64_t expected,
                         const std::vector<int64_t>& keep) {
    if (!keep.empty()) {
      check_size(cut, what, got, expected);
    }
  }

  void change(const at::Tensor& tensor, const std::vector<int64_t>& keep_outputs,
              const std::vector<int64_t>& keep_inputs = {}) {
    if (!tensor.defined() || (keep_outputs.empty() && keep_inputs.empty())) {
      return;
    }
    const auto cut = [&](const at::Tensor& whole) {
      auto part = keep_outputs.empty() ? whole : take(whole, 0, keep_outputs);
      return keep_inputs.empty() ? part : take(part, 1, keep_inputs);
    };
    TensorChange result{tensor, cut(tensor.detach()), {}, {}};
    if (tensor.grad().defined()) {
      result.grad = cut(tensor.grad());
    }
    if (optimizer_ != nullptr) {
      for (auto* state : detail::state_tensors(*optimizer_, tensor)) {
        result.states.emplace_back(state, cut(*state));
      }
    }
    tensors_.push_back(std::move(result));
  }

  torch::OrderedDict<std::string, std::shared_ptr<torch::nn::Module>> modules_;
  torch::optim::Optimizer* optimizer_;
  std::vector<TensorChange> tensors_;
  std::vector<std::function<void()>> options_;
};

}  // namespace

void apply_plan(torch::nn::Module& model, const ChannelPlan& plan, torch::optim::Optimizer* optimizer) {
  if (optimizer != nullptr) {
    detail::check_optimizer("apply_plan", *optimizer);
  }
  const c10::NoGradGuard no_grad;
  Surgeon surgeon(model, optimizer);
  for (const auto& cut : detail::cuts_by_layer(plan)) {
    surgeon.prepare(cut);
  }
  surgeon.commit();
}

ChannelPruner::ChannelPruner(torch::nn::Module& model, std::function<graph::Graph()> capture,
                             const ChannelPrunerOptions& options, torch::optim::Optimizer* optimizer)
    : model_(model),
      capture_(std::move(capture)),
      options_{options.ratio(), options.criterion(), options.round_to(), options.exclude()},
      optimizer_(optimizer) {
  if (optimizer_ != nullptr) {
    detail::check_optimizer("ChannelPruner", *optimizer_);
  }
}

ChannelPlan ChannelPruner::next_plan() const { return plan_channels(capture_(), options_); }

void ChannelPruner::step() {
  const auto next = next_plan();
  auto done = compose(done_, next);
  apply_plan(model_, next, optimizer_);
  done_ = std::move(done);
  stepped_ = true;
}

ChannelPlan ChannelPruner::plan() const { return stepped_ ? done_ : next_plan(); }

}  // namespace torchslim::prune
