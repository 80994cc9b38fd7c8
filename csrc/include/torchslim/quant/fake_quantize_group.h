// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>

namespace torchslim::quant {

/// Fake-quantises `x` with one grid for each group of `group_size` neighbours along dimension `axis`.
///   x           any shape with group_size dividing x.size(axis), dtypes as for `fake_quantize`
///   scale       the shape of x with x.size(axis) / group_size in dimension `axis`; any other dimension may be 1, and its
///               indices then share a grid: (O, I/g) for a linear weight, (O, I/g, 1, 1) for a convolution's
///   zero_point  the shape of scale, whole numbers
///   quant_min, quant_max   as for `fake_quantize`
///   group_size  ≥ 1
///   axis        negative from the end; other than the last dimension costs a copy
/// Gradient: clipped straight-through, one bit per element. Made of `fake_quantize` and views.
/// Throws c10::ValueError where the above does not hold, and as `fake_quantize`.
TORCHSLIM_API at::Tensor fake_quantize_group(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                                             int64_t quant_min, int64_t quant_max, int64_t group_size,
                                             int64_t axis = -1);

}  // namespace torchslim::quant
