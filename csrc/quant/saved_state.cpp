// SPDX-License-Identifier: BSD-3-Clause
#include "quant/saved_state.h"

namespace torchslim::quant::detail {

void SavedState::add(const torch::nn::Module& module, bool parameters) {
  for (const at::Tensor& buffer : module.buffers()) {
    saved_.emplace_back(buffer, buffer.clone());
  }
  if (parameters) {
    for (const at::Tensor& parameter : module.parameters()) {
      saved_.emplace_back(parameter.detach(), parameter.detach().clone());
    }
  }
}

SavedState::~SavedState() {
  const at::NoGradGuard no_grad;
  for (const auto& [tensor, copy] : saved_) {
    tensor.resize_(copy.sizes()).copy_(copy);
  }
}

}  // namespace torchslim::quant::detail
