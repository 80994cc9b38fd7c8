// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>

#include <cstdint>
#include <vector>

namespace torchslim::quant {

/// How a layer applies its weight. The weight's shape says the rest: (O, I) is a linear layer with inputs (..., I), to which
/// nothing here applies; (O, I/groups, k) a 1-d and (O, I/groups, kh, kw) a 2-d convolution with inputs (N, I, ...).
///
/// Example: LayerGeometry().stride({2}).padding({1})
struct TORCHSLIM_API LayerGeometry {
  /// One number for all spatial dimensions, or one for each. Default: 1.
  TORCH_ARG(std::vector<int64_t>, stride) = { 1 };
  /// Zeros on both sides; one number or one for each. Default: 0.
  TORCH_ARG(std::vector<int64_t>, padding) = { 0 };
  /// One number or one for each. Default: 1.
  TORCH_ARG(std::vector<int64_t>, dilation) = { 1 };
  /// Output channels come in this many groups, each of which sees its share of the input channels. Default: 1.
  TORCH_ARG(int64_t, groups) = 1;
};

}  // namespace torchslim::quant
