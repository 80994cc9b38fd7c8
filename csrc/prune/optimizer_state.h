// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>
#include <torchslim/api.h>

#include <vector>

namespace torchslim::prune::detail {

/// Throws c10::ValueError, naming the optimiser's type, unless each of its states has the shape of its parameter: so do
/// those of SGD, Adam, AdamW, RMSprop and Adagrad.
void check_optimizer(const char* call, torch::optim::Optimizer& optimizer);

/// Returns pointers to the defined tensors that `optimizer`, one that check_optimizer passed, keeps for `parameter`:
/// momentum, moments. They are as large as the parameter.
TORCHSLIM_API std::vector<at::Tensor*> state_tensors(torch::optim::Optimizer& optimizer, const at::Tensor& parameter);

}  // namespace torchslim::prune::detail
