// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "quant/fake_quantize.h"

// What the files of torchslim::binary_fake_quantize and torchslim::ternary_fake_quantize share.
namespace torchslim::quant::detail {

inline constexpr const char* kBinaryOp = "torchslim::binary_fake_quantize";
inline constexpr const char* kTernaryOp = "torchslim::ternary_fake_quantize";

/// Of the mean magnitude of ternary weights, the part up to which they become 0.
constexpr double kTernaryThreshold = 0.7;

/// One function per backend.
using SignForward = Quantized (*)(const at::Tensor& self, std::optional<int64_t> axis, bool ternary, bool with_cut);
Quantized sign_cpu(const at::Tensor& self, std::optional<int64_t> axis, bool ternary, bool with_cut);
Quantized sign_composite(const at::Tensor& self, std::optional<int64_t> axis, bool ternary, bool with_cut);
Quantized sign_meta(const at::Tensor& self, std::optional<int64_t> axis, bool ternary, bool with_cut);

/// Checks the input. Returns the axis, not negative.
std::optional<int64_t> check_sign(const at::Tensor& self, std::optional<int64_t> axis, bool ternary);

}  // namespace torchslim::quant::detail
