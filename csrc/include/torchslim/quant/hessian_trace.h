// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/arg.h>
#include <torch/nn/module.h>
#include <torchslim/api.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace torchslim::quant {

/// Options for `hessian_trace`.
struct TORCHSLIM_API HessianTraceOptions {
  /// Random vectors for each batch, ≥ 1; the error falls with their square root. Default: 32.
  TORCH_ARG(int64_t, samples) = 32;
  /// Of the random vectors: the same seed gives the same numbers. Default: 0.
  TORCH_ARG(int64_t, seed) = 0;
};

/// Estimates the trace of the Hessian of `loss` with respect to each tensor by itself: the mean over random v ∈ {−1, 1} of
/// vᵀ·H·v (Hutchinson 1990). A layer with a larger trace is hurt more by an error of its weights.
///   loss        a scalar with a graph that can be differentiated twice: of a float model, as fake-quantisers are no smooth
///               functions
///   parameters  what the graph was built from; those that it does not contain have trace 0
/// Throws c10::ValueError unless `loss` is one number with a graph, on options out of range, and where the result is not finite.
TORCHSLIM_API std::vector<double> hessian_trace(const at::Tensor& loss, const std::vector<at::Tensor>& parameters,
                                                const HessianTraceOptions& options = {});

/// The trace of one layer's weight.
struct TORCHSLIM_API LayerTrace {
  std::string layer;
  double trace = 0;
};

/// Estimates the trace for the weight of each convolution and linear layer in `module`, which runs in eval and comes back in the
/// mode it was in.
///   loss     returns the loss of batch i
///   batches  ≥ 1; the result is the mean over them
/// Throws what the function above throws, and c10::ValueError if `module` has no such layer. Dong et al. 2019, arXiv:1911.03852.
TORCHSLIM_API std::vector<LayerTrace> hessian_trace(torch::nn::Module& module,
                                                    const std::function<at::Tensor(int64_t)>& loss, int64_t batches,
                                                    const HessianTraceOptions& options = {});

}  // namespace torchslim::quant
