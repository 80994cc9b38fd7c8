// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/nn/modules/batchnorm.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/reestimate_batch_norm.h>

#include <optional>

#include "core/eval_mode.h"
#include "quant/graph_layers.h"
#include "quant/saved_state.h"

namespace torchslim::quant {
namespace {

constexpr const char* kReestimate = "torchslim::quant::reestimate_batch_norm";

// Lets batch norms average over all batches of its life, and puts their momentum back.
class CumulativeMeans {
 public:
  CumulativeMeans() = default;
  CumulativeMeans(const CumulativeMeans&) = delete;
  CumulativeMeans& operator=(const CumulativeMeans&) = delete;
  ~CumulativeMeans() {
    for (const auto& [options, momentum] : changed_) {
      options->momentum(momentum);
    }
  }

  template <typename Norm>
  bool add(Norm* norm) {
    if (norm == nullptr || !norm->running_mean.defined()) {
      return false;
    }
    changed_.emplace_back(&norm->options, norm->options.momentum());
    norm->options.momentum(std::nullopt);
    norm->reset_running_stats();
    norm->train();
    return true;
  }

 private:
  std::vector<std::pair<torch::nn::BatchNormOptions*, std::optional<double>>> changed_;
};

}  // namespace

void reestimate_batch_norm(const RunnableModule& model, const Batches& batches, const Progress& progress) {
  const at::NoGradGuard no_grad;
  const core::EvalMode eval(model.module);
  detail::SavedState before;
  before.add(model.module);
  CumulativeMeans means;
  bool found = false;
  // The form of training, which has the batch norm apart: parents come first, so quantisers are held after that.
  model.module.apply([](torch::nn::Module& child) {
    if (child.as<ConvBnAct2dImpl>() != nullptr || child.as<GraphLayerImpl>() != nullptr) {
      child.train();
    }
  });
  model.module.apply([&](torch::nn::Module& child) {
    if (child.as<FakeQuantizeImpl>() != nullptr) {
      child.eval();
    }
    found |= means.add(child.as<torch::nn::BatchNorm1dImpl>()) || means.add(child.as<torch::nn::BatchNorm2dImpl>()) ||
             means.add(child.as<torch::nn::BatchNorm3dImpl>()) || means.add(child.as<GraphBatchNormImpl>());
  });
  TORCH_CHECK_VALUE(found, kReestimate, ": the module has no batch norm with running statistics");
  batches.for_each(kReestimate, [&](const at::Tensor& batch) { model.forward(batch); }, progress);
  before.keep();
}

}  // namespace torchslim::quant
