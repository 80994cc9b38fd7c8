// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/quant/layer_geometry.h>

#include <cstdint>
#include <vector>

namespace torchslim::quant {

/// Collects the Hessian of a layer's squared output error with respect to one output channel's weight: H = mean of 2·x·xᵀ
/// over all rows x that the weight is applied to; and, where what the float network would give the layer is known, the drift
/// D = mean of 2·(x_float − x)·xᵀ, from which `gptq` makes good what moved x. Memory: H and D, and some megabytes for the rows
/// of a few samples (or of one).
/// Frantar et al. 2023, arXiv:2210.17323, section 3.1; drift: Li et al. 2025, arXiv:2504.02692, section 3.
///
/// Example: HessianAccumulator hessian(weight.sizes(), LayerGeometry().padding({1}));
class TORCHSLIM_API HessianAccumulator {
 public:
  ///   weight_shape  of the layer: (O, I), (O, I/groups, k) or (O, I/groups, kh, kw)
  ///   geometry      how a convolution applies it
  /// Throws c10::ValueError unless such a layer can exist.
  explicit HessianAccumulator(at::IntArrayRef weight_shape, const LayerGeometry& geometry = {});

  /// Adds a batch of the layer's inputs: floating point, (..., I) or (N, I, ...), not empty. Sums of a chunk are float32, of
  /// chunks float64. No gradient.
  ///   float_input  what the float network gives the layer, of the same shape; undefined: not known. Every batch has one, or
  ///                none has
  /// Throws c10::ValueError, with nothing added, if one does not fit the layer, is empty or holds NaN or infinity.
  void add(const at::Tensor& input, const at::Tensor& float_input = {});

  /// Returns H, float64 (groups, K, K) with K numbers in a row: I for a linear layer, I/groups·kh·kw for a convolution.
  /// Throws c10::ValueError if nothing was added.
  at::Tensor hessian() const;

  /// Returns D, of H's shape: D[:, i, j] of the drift of input i beside input j. Throws c10::ValueError if no float input was
  /// added.
  at::Tensor drift() const;

  /// Returns how many rows were added.
  int64_t rows() const { return rows_; }

 private:
  std::vector<int64_t> weight_shape_;
  LayerGeometry geometry_;
  at::Tensor sum_;    // of x·xᵀ
  at::Tensor drift_;  // sum of (x_float − x)·xᵀ; undefined without float inputs
  int64_t rows_ = 0;
};

}  // namespace torchslim::quant
