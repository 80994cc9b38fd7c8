// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>
#include <torchslim/quant/weight_grid.h>

#include <cstdint>
#include <optional>
#include <string>

namespace torchslim::quant {

/// Options for `gptq`.
///
/// Example: gptq(weight, hessian, GptqOptions().bits(4).act_order(true))
struct TORCHSLIM_API GptqOptions {
  /// Width of a code, 2 to 8. Empty: 4, and in `apply_gptq` the width that each layer was prepared with.
  TORCH_ARG(std::optional<int64_t>, bits) = std::nullopt;
  /// How the scale of a channel is chosen beforehand: "absmax" or "mse" (WeightGridOptions). Default: "absmax".
  TORCH_ARG(std::string, scale_search) = "absmax";
  /// Columns that are rounded before the rest of the weight is brought up to date, ≥ 1. Only speed depends on it.
  TORCH_ARG(int64_t, block_size) = 128;
  /// Share of the mean of H's diagonal that is added to it, ≥ 0. Default: 0.01.
  TORCH_ARG(double, damping) = 0.01;
  /// Whether columns are rounded in the order of falling H[i, i], instead of from left to right. Default: false.
  TORCH_ARG(bool, act_order) = false;
};

/// Rounds a weight column by column, and after each moves the columns not yet rounded so that the layer's output changes
/// least: with U the upper Cholesky factor of H⁻¹, e = (w_i − q_i) / U_ii and w_j −= e·U_ij for j > i. A channel that the
/// nearest grid point would serve better (smaller (q−w)ᵀ·H·(q−w)) takes that, so the result is never worse. In float64.
///   weight   (O, ...) float32, float64, bfloat16 or float16, not empty
///   hessian  (groups, K, K), or (K, K) for one group, of HessianAccumulator; K·O is the weight's size
/// With a drift D what is approached is the answer of the float network: w·x_float by q·x. Of all weights, before rounding,
/// w' = w + w·D·H⁻¹ comes nearest; that is rounded, and what is compared is (q−w)ᵀ·H·(q−w) − 2·w·D·(q−w). The scale is that of w.
///   drift    of H's shape, of HessianAccumulator, or undefined: the layer's own answer to x is approached
/// An input that was always zero (H[i, i] = 0) is rounded to nearest. A group's damping grows tenfold, from 1e-6 at least,
/// until its H is positive definite.
/// Throws c10::ValueError on NaN or infinity, shapes, options out of range, and an H that no damping makes positive definite.
/// No gradient. Frantar et al. 2023, arXiv:2210.17323, algorithm 1; drift: Li et al. 2025, arXiv:2504.02692 (GPTAQ), which moves
/// w column by column; in one step it is the same aim.
TORCHSLIM_API GridWeight gptq(const at::Tensor& weight, const at::Tensor& hessian, const GptqOptions& options = {},
                              const at::Tensor& drift = {});

}  // namespace torchslim::quant
