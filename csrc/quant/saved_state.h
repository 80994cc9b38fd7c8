// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>

#include <utility>
#include <vector>

namespace torchslim::quant::detail {

/// The values that modules had: puts them back, unless `keep` was called, at the end of its life.
class SavedState {
 public:
  /// Copies the buffers of `module` and its children, and if asked the parameters.
  void add(const torch::nn::Module& module, bool parameters = false);

  void keep() { saved_.clear(); }

  SavedState() = default;
  SavedState(const SavedState&) = delete;
  SavedState& operator=(const SavedState&) = delete;
  ~SavedState();

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> saved_;  // the tensor, a copy
};

}  // namespace torchslim::quant::detail
