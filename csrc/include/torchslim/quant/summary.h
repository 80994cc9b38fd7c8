// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torchslim/api.h>
#include <torchslim/quant/batches.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace torchslim::quant {

/// How far a rounded tensor is from what it was.
struct TORCHSLIM_API GridError {
  double saturated;  // the share of elements that the grid's ends cut off, in [0, 1]
  double sqnr;       // signal to quantisation noise, 10·log10(Σx² / Σ(x − y)²), in dB; infinite without noise
};

/// Compares `rounded` with `x`, both float32 of one shape, in float64. An element is cut off if it moved by more than half a
/// step. Same bits for any number of threads.
///   scale  the step: one element, or (O) for the first dimension of x, float32; undefined: nothing counts as cut off
/// Throws c10::ValueError for other shapes or types, and an empty tensor.
TORCHSLIM_API GridError grid_error(const at::Tensor& x, const at::Tensor& rounded, const at::Tensor& scale);

/// One quantiser of a prepared model.
struct TORCHSLIM_API SummaryRow {
  std::string layer;   // dotted name of the layer, or of the quantiser where no layer holds it
  std::string tensor;  // "weight" or "activation"
  std::string grid;    // quantiser and bits, such as "lsq 4"
  int64_t bits;        // width of a code
  std::optional<double> smallest_scale, largest_scale;  // empty where there is no scale (yet)
  std::optional<double> saturated, sqnr;                // of `GridError`; empty where nothing was compared
};

/// Returns one row for the weight and one for the activation of each prepared layer in `module`, in its order, as the model is
/// now. Weights are compared with what they are rounded to. Throws c10::ValueError if nothing is prepared.
TORCHSLIM_API std::vector<SummaryRow> summary(torch::nn::Module& module);

/// The same with activations compared too: `model` runs on `inputs`, a batch, in eval mode with no rounding, and each activation
/// is compared with what its quantiser would make of it. The model is left as it is. Throws c10::ValueError too if a quantiser has
/// seen nothing or is disabled.
TORCHSLIM_API std::vector<SummaryRow> summary(const RunnableModule& model, const at::Tensor& inputs);

/// Returns the rows as a readable table.
TORCHSLIM_API std::string to_string(const std::vector<SummaryRow>& rows);

/// Returns the names of the layers with a weight that stay in float, in `module`'s order.
TORCHSLIM_API std::vector<std::string> float_layers(torch::nn::Module& module);

}  // namespace torchslim::quant
