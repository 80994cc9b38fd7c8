// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/quant/layer_geometry.h>

#include <cstdint>
#include <random>
#include <vector>

namespace torchslim::quant {

/// Keeps some of what a layer is given and should answer: rows that its weight is applied to (an input of a linear layer, a
/// window of a convolution's input), and the outputs wanted for them. Every row that was added is kept with the same
/// probability (Vitter 1985, algorithm R), so that memory is bounded.
///
/// Example: LayerSamples samples(weight.sizes(), LayerGeometry().padding({1}));
class TORCHSLIM_API LayerSamples {
 public:
  ///   weight_shape  of the layer: (O, I), (O, I/groups, k) or (O, I/groups, kh, kw)
  ///   geometry      how a convolution applies it
  ///   max_bytes     of the rows kept, at least one; each is float32, with its target
  ///   seed          of the choice
  /// Throws c10::ValueError unless such a layer can exist and a row fits.
  explicit LayerSamples(at::IntArrayRef weight_shape, const LayerGeometry& geometry = {},
                        int64_t max_bytes = int64_t{256} << 20, uint64_t seed = 0);

  /// Adds a batch: the layer's inputs, floating point, (..., I) or (N, I, ...), not empty, and the outputs wanted for them,
  /// (..., O) or (N, O, ...). No gradient.
  /// Throws c10::ValueError, with nothing added, if they do not fit the layer, are empty or hold NaN or infinity.
  void add(const at::Tensor& input, const at::Tensor& target);

  /// Returns the rows kept, float32 (groups, rows, K), and their targets, (groups, rows, O / groups).
  at::Tensor inputs() const;
  at::Tensor targets() const;

  /// Returns how many rows were added.
  int64_t rows() const { return rows_; }
  const std::vector<int64_t>& weight_shape() const { return weight_shape_; }

 private:
  int64_t kept() const { return rows_ < most_ ? rows_ : most_; }

  std::vector<int64_t> weight_shape_;
  LayerGeometry geometry_;
  int64_t most_;  // rows
  std::mt19937_64 random_;
  at::Tensor inputs_, targets_;
  int64_t rows_ = 0;
};

}  // namespace torchslim::quant
