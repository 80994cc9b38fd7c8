// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/quant/layer_geometry.h>

#include <cstdint>
#include <vector>

namespace torchslim::quant {

/// Collects the Hessian of a layer's squared output error with respect to one output channel's weight: H = mean of 2·x·xᵀ
/// over all rows x that the weight is applied to. Memory: H, and some megabytes for the rows of a few samples (or of one).
/// Frantar et al. 2023, arXiv:2210.17323, section 3.1.
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
  /// Throws c10::ValueError, with nothing added, if it does not fit the layer, is empty or holds NaN or infinity.
  void add(const at::Tensor& input);

  /// Returns H, float64 (groups, K, K) with K numbers in a row: I for a linear layer, I/groups·kh·kw for a convolution.
  /// Throws c10::ValueError if nothing was added.
  at::Tensor hessian() const;

  /// Returns how many rows were added.
  int64_t rows() const { return rows_; }

 private:
  std::vector<int64_t> weight_shape_;
  LayerGeometry geometry_;
  at::Tensor sum_;  // of x·xᵀ
  int64_t rows_ = 0;
};

}  // namespace torchslim::quant
