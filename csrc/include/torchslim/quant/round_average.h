// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>

namespace torchslim::quant {

/// Rounds averages of values on a grid to the grid as integers do: the sum of codes k = rint(average·count / scale), then
/// scale·rint(k·m) with m = scale / (scale·count) in float32 (QNNPACK's rule). An average of a few codes often lies
/// half-way between two; `fake_quantize` would decide by the float error of the average there.
///   average  of `count` values on the grid, any shape, float
///   scale    one element, float32, > 0; the zero point cancels
///   count    how many values were averaged, > 0
/// Gradient: straight-through, the identity, as no average lies outside the grid. Op: torchslim::round_average.
TORCHSLIM_API at::Tensor round_average(const at::Tensor& average, const at::Tensor& scale, int64_t count);

}  // namespace torchslim::quant
