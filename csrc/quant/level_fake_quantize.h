// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "quant/fake_quantize.h"

// What the files of torchslim::level_fake_quantize share.
namespace torchslim::quant::detail {

inline constexpr const char* kLevelOp = "torchslim::level_fake_quantize";

/// The op's arguments beside its input.
struct LevelArguments {
  const at::Tensor& levels;
  const at::Tensor& scale;
  std::optional<int64_t> axis;
};

/// One function per backend.
using LevelForward = Quantized (*)(const at::Tensor& self, const LevelArguments& arguments, bool with_cut);
Quantized level_cpu(const at::Tensor& self, const LevelArguments& arguments, bool with_cut);
Quantized level_composite(const at::Tensor& self, const LevelArguments& arguments, bool with_cut);
Quantized level_meta(const at::Tensor& self, const LevelArguments& arguments, bool with_cut);

/// Checks the input and all of `levels` but its values.
void check_levels(const at::Tensor& self, const at::Tensor& levels);
/// Throws unless the levels, float32 on the CPU and contiguous, are finite and strictly ascending.
void check_level_values(const at::Tensor& levels);

}  // namespace torchslim::quant::detail
