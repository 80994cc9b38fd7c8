// SPDX-License-Identifier: BSD-3-Clause
// torchslim::level_fake_quantize in terms of ATen, for devices without a kernel of ours: the same bits, more passes.
#include <ATen/ops/arange.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/nextafter.h>
#include <ATen/ops/where.h>

#include <limits>

#include "quant/level_fake_quantize.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {

// Returns, for each pair of neighbouring levels, the largest number that belongs to the lower: its middle, or just below it
// where the middle goes up to an even index.
at::Tensor thresholds_between(const at::Tensor& levels, at::ScalarType type) {
  const auto wide = levels.to(at::kDouble);
  const int64_t n = wide.numel();
  const auto middle = wide.slice(0, 0, n - 1).add(wide.slice(0, 1, n)).div_(2);
  const auto goes_up = at::arange(1, n, levels.options().dtype(at::kLong)).remainder(2).eq(0);
  const auto nearest = middle.to(type);
  const auto too_high = at::where(goes_up, nearest.to(at::kDouble).ge(middle), nearest.to(at::kDouble).gt(middle));
  const auto below = at::nextafter(nearest, at::full_like(nearest, -std::numeric_limits<double>::infinity()));
  return at::where(too_high, below, nearest);
}

}  // namespace

Quantized level_composite(const at::Tensor& self, const LevelArguments& arguments, bool with_cut) {
  check_levels(self, arguments.levels);
  const auto levels = arguments.levels.detach().to(at::kFloat).contiguous();
  if (levels.is_cpu()) {  // reading values from another device would wait for it
    check_level_values(levels);
  }
  const auto [inverse_scale, scale] = scale_tensors(kLevelOp, self, arguments.scale, arguments.axis);
  const auto type = scale.scalar_type();
  const auto v = self.to(type).mul(inverse_scale).contiguous();
  const auto index = at::bucketize(v, thresholds_between(levels, type));
  const auto nearest = levels.to(type).index_select(0, index.flatten()).reshape(v.sizes());
  Quantized result{at::empty_like(self).copy_(at::where(v.isnan(), v, nearest).mul_(scale)), {}};
  if (with_cut) {
    const auto type_levels = levels.to(type);
    const auto inside = v.ge(type_levels[0]).logical_and_(v.le(type_levels[-1]));
    result.cut = pack_bits(at::empty_like(self, self.options().dtype(at::kBool)).copy_(inside.logical_not_()));
  }
  return result;
}

}  // namespace torchslim::quant::detail
