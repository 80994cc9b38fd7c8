// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

// What integer runtimes compute where codes on one grid become codes on another, as floats: QNNPACK's rules to the last bit,
// so that the eval forward of a prepared model is what its integers give. Inputs lie on their grids. No gradients.

namespace torchslim::quant {

/// Returns `x` in whole steps of its grid, code − zero point: round(x · 1/scale).
///   x  any shape, float32, on the grid      scale  float32 (), > 0
TORCHSLIM_API at::Tensor steps_of(const at::Tensor& x, const at::Tensor& scale);

/// Returns sums of products of codes on the grid of the output: round(sums · (step · 1/output_scale)) · output_scale.
///   sums          float32, whole numbers, channels along `axis`; overwritten
///   step          float32 (channels), what 1 is worth: input scale · weight scale
///   output_scale  float32 (), > 0
TORCHSLIM_API at::Tensor requantize_sums(const at::Tensor& sums, const at::Tensor& step, const at::Tensor& output_scale,
                                         int64_t axis);

/// Returns a + b on the grid of the output, by fixed-point multipliers of 22 bits, ties away from zero.
///   a, b          float32, one shape, on grids of scale a_scale and b_scale, float32 ()
///   output_scale  float32 (), > 0
TORCHSLIM_API at::Tensor requantized_add(const at::Tensor& a, const at::Tensor& a_scale, const at::Tensor& b,
                                         const at::Tensor& b_scale, const at::Tensor& output_scale);

/// Returns a · b on the grid of the output: round(float(steps of a · steps of b) · (a_scale · b_scale / output_scale)).
///   a, b          float32, broadcast, on grids of scale a_scale and b_scale, float32 ()
///   output_scale  float32 (), > 0
TORCHSLIM_API at::Tensor requantized_mul(const at::Tensor& a, const at::Tensor& a_scale, const at::Tensor& b,
                                         const at::Tensor& b_scale, const at::Tensor& output_scale);

}  // namespace torchslim::quant
