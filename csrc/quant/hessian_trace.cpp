// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>
#include <torchslim/quant/hessian_trace.h>

#include <cmath>

#include "core/eval_mode.h"
#include "quant/weighted_layers.h"

namespace torchslim::quant {
namespace {

constexpr const char* kTrace = "torchslim::hessian_trace";
using Tensors = std::vector<at::Tensor>;

Tensors random_signs(const Tensors& like, at::Generator& generator) {
  Tensors signs;
  for (const auto& tensor : like) {
    signs.push_back(at::empty(tensor.sizes(), tensor.options().device(at::kCPU).requires_grad(false))
                        .bernoulli_(0.5, generator)
                        .mul_(2)
                        .sub_(1)
                        .to(tensor.device()));
  }
  return signs;
}

/// The tensors that a gradient depends on further, and their places.
struct Smooth {
  Tensors gradients;
  std::vector<size_t> places;
};

Smooth smooth_of(const Tensors& gradients) {
  Smooth smooth;
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (gradients[i].defined() && gradients[i].requires_grad()) {
      smooth.gradients.push_back(gradients[i]);
      smooth.places.push_back(i);
    }
  }
  return smooth;
}

}  // namespace

std::vector<double> hessian_trace(const at::Tensor& loss, const std::vector<at::Tensor>& parameters,
                                  const HessianTraceOptions& options) {
  TORCH_CHECK_VALUE(options.samples() >= 1, kTrace, ": samples must be >= 1, got ", options.samples());
  TORCH_CHECK_VALUE(loss.defined() && loss.numel() == 1 && loss.requires_grad(), kTrace,
                    ": the loss must be one number that depends on the parameters; return the mean over the batch, and "
                    "keep torch.no_grad away from it");
  for (size_t i = 0; i < parameters.size(); ++i) {
    TORCH_CHECK_VALUE(parameters[i].requires_grad(), kTrace, ": parameter ", i, " of shape ", parameters[i].sizes(),
                      " has no gradient; set requires_grad");
  }
  std::vector<double> traces(parameters.size(), 0.0);
  const auto gradients = torch::autograd::grad({loss.sum()}, parameters, {}, /*retain_graph=*/true,
                                               /*create_graph=*/true, /*allow_unused=*/true);
  const Smooth smooth = smooth_of(gradients);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(options.seed()));
  for (int64_t s = 0; s < options.samples() && !smooth.places.empty(); ++s) {
    const auto signs = random_signs(parameters, generator);
    Tensors chosen;
    for (const size_t place : smooth.places) {
      chosen.push_back(signs[place]);
    }
    const auto products =
        torch::autograd::grad(smooth.gradients, parameters, chosen, /*retain_graph=*/true, /*create_graph=*/false,
                              /*allow_unused=*/true);
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (products[i].defined()) {
        traces[i] += (signs[i] * products[i]).sum(at::kDouble).item<double>();
      }
    }
  }
  for (size_t i = 0; i < traces.size(); ++i) {
    traces[i] /= static_cast<double>(options.samples());
    TORCH_CHECK_VALUE(std::isfinite(traces[i]), kTrace, ": the trace of parameter ", i, " of shape ",
                      parameters[i].sizes(), " is ", traces[i], "; the loss or its derivatives are not finite");
  }
  return traces;
}

std::vector<LayerTrace> hessian_trace(torch::nn::Module& module, const std::function<at::Tensor(int64_t)>& loss,
                                      int64_t batches, const HessianTraceOptions& options) {
  TORCH_CHECK_VALUE(batches >= 1, kTrace, ": batches must be >= 1, got ", batches);
  std::vector<LayerTrace> result;
  Tensors weights;
  for (const auto& layer : detail::weighted_layers(kTrace, module)) {
    result.push_back({layer.name});
    weights.push_back(layer.weight);
  }
  const core::EvalMode eval(module);
  const at::AutoGradMode with_gradients(true);
  for (int64_t batch = 0; batch < batches; ++batch) {
    const auto traces = hessian_trace(loss(batch), weights, HessianTraceOptions(options).seed(options.seed() + batch));
    for (size_t i = 0; i < traces.size(); ++i) {
      result[i].trace += traces[i] / static_cast<double>(batches);
    }
  }
  return result;
}

}  // namespace torchslim::quant
