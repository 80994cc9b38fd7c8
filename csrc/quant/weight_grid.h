// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/quant/weight_grid.h>

#include <cstdint>
#include <optional>
#include <string>

// What the methods that round weights share.
namespace torchslim::quant::detail {

/// Returns the grid that a method rounds to: of 4 bits unless `bits` says otherwise.
inline WeightGridOptions grid_options(std::optional<int64_t> bits, const std::string& scale_search) {
  return WeightGridOptions().bits(bits.value_or(4)).scale_search(scale_search);
}

/// Throws unless `weight` is (O, ...) of a floating type, not empty, and finite; `who` is the name that errors show.
void check_grid_weight(const char* who, const at::Tensor& weight);

/// Returns (O) in the shape (O, 1, 1, ...) that broadcasts over a tensor of `dims` dimensions.
at::Tensor over_channels(const at::Tensor& channels, int64_t dims);

/// Returns the weight whose `codes` (int8) are given, in the dtype of `like`.
GridWeight weight_of_codes(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& like);

}  // namespace torchslim::quant::detail
