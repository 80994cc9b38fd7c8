// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/quant/float_format.h>

#include <optional>

#include "quant/fake_quantize.h"

// What the files of torchslim::float_fake_quantize and torchslim::block_float_fake_quantize share.
namespace torchslim::quant::detail {

inline constexpr const char* kFloatOp = "torchslim::float_fake_quantize";
inline constexpr const char* kBlockFloatOp = "torchslim::block_float_fake_quantize";

/// The ops' arguments beside their input.
struct FloatArguments {
  FloatFormat format;
  at::Tensor scale;  // undefined: 1
  std::optional<int64_t> axis;
};
struct BlockFloatArguments {
  FloatFormat format;
  int64_t block_size;
  int64_t axis;
};

/// One function per backend.
using FloatForward = Quantized (*)(const at::Tensor& self, const FloatArguments& arguments, bool with_cut);
Quantized float_cpu(const at::Tensor& self, const FloatArguments& arguments, bool with_cut);
Quantized float_composite(const at::Tensor& self, const FloatArguments& arguments, bool with_cut);
Quantized float_meta(const at::Tensor& self, const FloatArguments& arguments, bool with_cut);

using BlockFloatForward = Quantized (*)(const at::Tensor& self, const BlockFloatArguments& arguments, bool with_cut);
Quantized block_float_cpu(const at::Tensor& self, const BlockFloatArguments& arguments, bool with_cut);
Quantized block_float_composite(const at::Tensor& self, const BlockFloatArguments& arguments, bool with_cut);
Quantized block_float_meta(const at::Tensor& self, const BlockFloatArguments& arguments, bool with_cut);

/// Checks all but the scale.
void check_float(const at::Tensor& self, const FloatArguments& arguments);
/// Checks all arguments. Returns the axis, not negative.
int64_t check_block_float(const at::Tensor& self, const BlockFloatArguments& arguments);

/// The exponent of the format's largest number.
int largest_exponent(const FloatFormat& format);

}  // namespace torchslim::quant::detail
