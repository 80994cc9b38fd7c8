// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/graph/graph.h>
#include <torchslim/quant/batches.h>

#include <string>
#include <vector>

namespace torchslim::quant {

/// Makes up, without data, for what rounding the weights does to the mean of each output channel: subtracts
///   Σ (w̃ − w)·E[x],  summed over a channel's weights, w̃ rounded,
/// from the layer's output: from the beta of the batch norm behind it or, if there is none, from its bias. E[x] of an input
/// channel follows from the batch norm that made it: a normal variable of mean beta and deviation |gamma|, clipped by the
/// activation. Through additions means and variances add up; average pools and flatten keep the mean.
///   graph  of a prepared module; its tensors, which are the module's own, are changed
/// Returns the names of the layers left as they are: those whose input is not known so (the first, what follows a convolution
/// without batch norm or a max pool), and those without beta or bias.
/// Throws c10::ValueError, with nothing changed, if no weight in `graph` is rounded.
/// Nagel et al. 2019, arXiv:1906.04721, eq. 17-20 and appendix C.
TORCHSLIM_API std::vector<std::string> correct_bias_analytic(const graph::Graph& graph);

/// The same for a prepared module; `example` is a batch of its inputs, whose values do not matter.
TORCHSLIM_API std::vector<std::string> correct_bias_analytic(const RunnableModule& model, const at::Tensor& example);

/// The mean and variance of a normal variable after it is clipped, float64.
struct TORCHSLIM_API Moments {
  at::Tensor mean;
  at::Tensor var;
};

/// Returns the moments of clip(x, low, high) for x normal with the given mean and standard deviation:
/// with a = (low − mean) / deviation, b = (high − mean) / deviation, φ and Φ of the standard normal distribution,
///   E = mean·(Φ(b) − Φ(a)) + deviation·(φ(a) − φ(b)) + low·Φ(a) + high·(1 − Φ(b)).
///   mean, deviation  one shape, floating point; deviation ≥ 0
///   low, high        low < high; high may be infinite
TORCHSLIM_API Moments clipped_normal(const at::Tensor& mean, const at::Tensor& deviation, double low, double high);

}  // namespace torchslim::quant
