// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <utility>
#include <vector>

namespace torchslim::core {

/// Puts a module into eval mode and, at the end of its life, each submodule back into the mode that it had.
class EvalMode {
 public:
  explicit EvalMode(torch::nn::Module& module) : root_(module), was_training_(module.is_training()) {
    for (const auto& child : root_.named_modules("", /*include_self=*/false)) {
      modes_.emplace_back(child.value(), child.value()->is_training());
    }
    root_.eval();
  }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;
  ~EvalMode() {
    // train() sets the children too, and the list has parents before their children.
    root_.train(was_training_);
    for (const auto& [module, training] : modes_) {
      module->train(training);
    }
  }

 private:
  torch::nn::Module& root_;
  bool was_training_;
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> modes_;
};

}  // namespace torchslim::core
