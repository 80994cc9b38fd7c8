// SPDX-License-Identifier: BSD-3-Clause
// The floating-point fake-quantise ops in terms of ATen, for devices without a kernel of ours: the same bits, more passes.
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_left_shift.h>
#include <ATen/ops/bitwise_or.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/bitwise_xor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "quant/float_fake_quantize.h"
#include "quant/float_format.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {

constexpr int64_t kSign = std::numeric_limits<int32_t>::min();
constexpr int64_t kMagnitude = std::numeric_limits<int32_t>::max();

// Rounds float32 numbers to the format: FloatRounding of float_grid.h.
at::Tensor rounded(const at::Tensor& v, const FloatGrid& grid) {
  const auto bits = v.view(at::kInt);
  const auto magnitude = at::bitwise_and(bits, kMagnitude);
  const auto size = magnitude.view(at::kFloat);
  const auto last = at::bitwise_xor(at::bitwise_right_shift(magnitude, grid.shift), grid.odd);
  const auto raised = magnitude.add(at::bitwise_and(last, 1)).add_((int64_t{1} << (grid.shift - 1)) - 1);
  const auto normal = at::bitwise_left_shift(at::bitwise_right_shift(raised, grid.shift), grid.shift);
  const auto subnormal = size.add(grid.magic).sub_(grid.magic);
  const auto number = at::where(size.lt(grid.smallest_normal), subnormal, normal.view(at::kFloat));
  const auto result = at::where(size.le(grid.limit), number, at::full_like(number, grid.overflow));
  const auto with_sign = at::bitwise_or(result.view(at::kInt), at::bitwise_and(bits, kSign)).view(at::kFloat);
  return at::where(v.isnan(), v, with_sign);
}

// y = scale · round(x · inverse_scale), and the bits of what is too large.
Quantized rounded_at_scale(const at::Tensor& self, const at::Tensor& inverse_scale, const at::Tensor& scale,
                           const FloatFormat& format, bool with_cut) {
  const FloatGrid grid = float_grid(format);
  const auto v = self.to(scale.scalar_type()).mul(inverse_scale).to(at::kFloat).contiguous();
  Quantized result{at::empty_like(self).copy_(rounded(v, grid).to(scale.scalar_type()).mul(scale)), {}};
  if (with_cut) {
    const auto fits = v.abs().le(grid.limit);
    result.cut = pack_bits(at::empty_like(self, self.options().dtype(at::kBool)).copy_(fits.logical_not()));
  }
  return result;
}

// 2^exponent for -127 ≤ exponent ≤ 127 as float32; the lowest is subnormal.
at::Tensor powers_of_two(const at::Tensor& exponent) {
  const auto normal = at::bitwise_left_shift(exponent.add(127), 23);
  return at::where(exponent.eq(-127), at::full_like(normal, 0x00400000), normal).view(at::kFloat);
}

}  // namespace

Quantized float_composite(const at::Tensor& self, const FloatArguments& arguments, bool with_cut) {
  check_float(self, arguments);
  const auto given = arguments.scale.defined() ? arguments.scale : at::ones({}, self.options().dtype(at::kFloat));
  const auto [inverse_scale, scale] = scale_tensors(kFloatOp, self, given, arguments.axis);
  return rounded_at_scale(self, inverse_scale, scale, arguments.format, with_cut);
}

Quantized block_float_composite(const at::Tensor& self, const BlockFloatArguments& arguments, bool with_cut) {
  const int64_t axis = check_block_float(self, arguments);
  if (self.numel() == 0) {
    return like_input(self, with_cut);
  }
  const auto type = self.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto size = self.to(at::kFloat).abs();
  const auto finite = at::where(size.isfinite(), size, at::zeros_like(size));
  const auto largest = finite.unflatten(axis, at::IntArrayRef{-1, arguments.block_size}).amax(axis + 1, true);
  const auto field = at::bitwise_right_shift(largest.contiguous().view(at::kInt), 23);
  const auto exponent = field.sub(127 + largest_exponent(arguments.format)).clamp_(-127, 127);
  std::vector<int64_t> blocks = largest.sizes().vec();
  blocks[axis + 1] = arguments.block_size;
  const auto spread = exponent.expand(blocks).flatten(axis, axis + 1);
  return rounded_at_scale(self, powers_of_two(spread.neg()).to(type), powers_of_two(spread).to(type), arguments.format,
                          with_cut);
}

}  // namespace torchslim::quant::detail
