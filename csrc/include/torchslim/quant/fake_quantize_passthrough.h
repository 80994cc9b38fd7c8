// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>

namespace torchslim::quant {

/// Returns the bits of `fake_quantize`, and lets the whole gradient through: what saturates goes on learning, as weights
/// should, which nothing else pulls back into their range (Brevitas' rule for weights, `TensorClampSte`).
///   x, scale, zero_point, quant_min, quant_max, axis   as for `fake_quantize`
/// Gradient: pass-through straight-through, 1 everywhere; nothing is kept for it. Differentiable any number of times.
/// Op `torchslim::fake_quantize_passthrough`. Throws as `fake_quantize`. Bengio et al. 2013, arXiv:1308.3432.
TORCHSLIM_API at::Tensor fake_quantize_passthrough(const at::Tensor& x, const at::Tensor& scale,
                                                   const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                                   std::optional<int64_t> axis = std::nullopt);

}  // namespace torchslim::quant
