// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/quant/layer_geometry.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace torchslim::quant::detail {

/// A layer seen as a product of matrices: in each of its groups, out = row · weightᵀ for every row of its input.
class LayerRows {
 public:
  /// Throws c10::ValueError, with `who` in front, unless a layer of `weight_shape` and `geometry` can exist.
  LayerRows(const char* who, at::IntArrayRef weight_shape, const LayerGeometry& geometry);

  int64_t groups() const { return groups_; }
  /// Numbers in a row: inputs that one output sees.
  int64_t width() const { return width_; }
  int64_t out_channels() const { return weight_shape_[0]; }

  /// Calls `use` with the rows of `input`, (groups, rows, width) float32, in chunks of some megabytes at most (or one sample),
  /// and the samples [begin, end) they are of.
  /// Throws c10::ValueError if the input does not fit the layer, is empty, or holds NaN or infinity.
  void for_each_chunk(const at::Tensor& input,
                      const std::function<void(const at::Tensor& rows, int64_t begin, int64_t end)>& use) const;

  /// The same with the rows of `beside`, an input of the same shape, next to those of `input`.
  void for_each_pair(const at::Tensor& input, const at::Tensor& beside,
                     const std::function<void(const at::Tensor& rows, const at::Tensor& beside)>& use) const;

  /// Returns what the layer gives for samples [begin, end) of `output` as (groups, rows, O / groups), float32.
  at::Tensor output_rows(const at::Tensor& output, int64_t begin, int64_t end) const;

  /// Throws c10::ValueError unless `output` is what the layer gives for `input`, in shape, and is finite.
  void check_output(const at::Tensor& input, const at::Tensor& output) const;

  /// Returns the weight as (groups, O / groups, width).
  at::Tensor weight_rows(const at::Tensor& weight) const;

 private:
  bool is_linear() const { return weight_shape_.size() == 2; }
  at::Tensor samples_of(const at::Tensor& input) const;
  at::Tensor rows_of(const at::Tensor& samples) const;
  std::vector<int64_t> output_shape(const at::Tensor& input) const;

  const char* who_;
  std::vector<int64_t> weight_shape_;
  int64_t groups_;
  int64_t width_;
  std::vector<int64_t> kernel_, stride_, padding_, dilation_;  // two numbers each; a 1-d layer has height 1
};

}  // namespace torchslim::quant::detail
