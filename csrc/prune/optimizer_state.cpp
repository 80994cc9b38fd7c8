// SPDX-License-Identifier: BSD-3-Clause
#include "prune/optimizer_state.h"

#include <c10/util/Exception.h>
#include <c10/util/Type.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <initializer_list>
#include <typeinfo>

namespace torchslim::prune::detail {
namespace {

namespace optim = torch::optim;

template <typename... Optimizers>
bool is_one_of(optim::Optimizer& optimizer) {
  return ((dynamic_cast<Optimizers*>(&optimizer) != nullptr) || ...);
}

std::vector<at::Tensor*> all_tensors(optim::OptimizerParamState& state) {
  if (auto* sgd = dynamic_cast<optim::SGDParamState*>(&state)) {
    return {&sgd->momentum_buffer()};
  }
  if (auto* adam = dynamic_cast<optim::AdamParamState*>(&state)) {
    return {&adam->exp_avg(), &adam->exp_avg_sq(), &adam->max_exp_avg_sq()};
  }
  if (auto* adamw = dynamic_cast<optim::AdamWParamState*>(&state)) {
    return {&adamw->exp_avg(), &adamw->exp_avg_sq(), &adamw->max_exp_avg_sq()};
  }
  if (auto* rmsprop = dynamic_cast<optim::RMSpropParamState*>(&state)) {
    return {&rmsprop->square_avg(), &rmsprop->momentum_buffer(), &rmsprop->grad_avg()};
  }
  if (auto* adagrad = dynamic_cast<optim::AdagradParamState*>(&state)) {
    return {&adagrad->sum()};
  }
  TORCH_INTERNAL_ASSERT(false, "state of an optimiser that check_optimizer refuses");
}

}  // namespace

void check_optimizer(const char* call, optim::Optimizer& optimizer) {
  const bool known = is_one_of<optim::SGD, optim::Adam, optim::AdamW, optim::RMSprop, optim::Adagrad>(optimizer);
  TORCH_CHECK_VALUE(known, "torchslim::", call,
                    ": expected an optimiser whose state follows its parameters element by ",
                    "element (SGD, Adam, AdamW, RMSprop, Adagrad), got ", c10::demangle(typeid(optimizer).name()),
                    "; prune without it and make a new one afterwards");
}

std::vector<at::Tensor*> state_tensors(optim::Optimizer& optimizer, const at::Tensor& parameter) {
  const auto found = optimizer.state().find(parameter.unsafeGetTensorImpl());
  std::vector<at::Tensor*> tensors;
  if (found == optimizer.state().end()) {
    return tensors;
  }
  for (auto* tensor : all_tensors(*found->second)) {
    if (tensor->defined()) {
      tensors.push_back(tensor);
    }
  }
  return tensors;
}

}  // namespace torchslim::prune::detail
