// SPDX-License-Identifier: BSD-3-Clause
// learned_fake_quantize in terms of ATen, for devices without a kernel of ours: the same values and dx, sums in ATen's order.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <vector>

#include "quant/learned_fake_quantize.h"

namespace torchslim::quant::detail {
namespace {

// Σ over all but the channels, in float64, in the shape of `like`.
at::Tensor summed(const at::Tensor& terms, std::optional<int64_t> axis, const at::Tensor& like) {
  const auto wide = terms.to(at::kDouble);
  const auto sums = axis ? wide.movedim(*axis, 0).unsqueeze(-1).flatten(1).sum(1) : wide.sum();
  return sums.reshape(like.sizes());
}

// The gradients before the sums, in float32 (float64 for float64).
struct Contributions {
  at::Tensor x, scale, outside;
};

Contributions contributions_of(const at::Tensor& grad, const at::Tensor& self, const Qparams& grid, bool clip,
                               std::optional<int64_t> axis) {
  const auto type = self.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<int64_t> shape(axis ? self.dim() : 0, 1);
  if (axis) {
    shape[*axis] = -1;
  }
  const auto scale = grid.scale_tensor.to(at::kFloat).reshape(shape);
  const auto zero_point = grid.zero_point_tensor.to(at::kFloat).reshape(shape);
  const auto low = (grid.quant_min - zero_point).to(type);
  const auto high = (grid.quant_max - zero_point).to(type);
  const auto dy = grad.to(type);
  const auto position = self.to(type) * scale.reciprocal().to(type);
  const auto steps = position.round();
  const auto nearest = steps.clamp(low, high);
  const auto inside = clip ? position.gt(low).logical_and_(position.lt(high)) : nearest.eq(steps);
  const auto zero = at::zeros_like(nearest);
  return {dy * inside.to(type), dy * (nearest - at::where(inside, clip ? nearest : position, zero)),
          at::where(inside, zero, dy)};
}

Qparams rounded_qparams(const at::Tensor& self, const LearnedGrid& grid) {
  auto qparams = as_qparams(self, grid);
  check_qparams(kLearnedOp, self, qparams);
  qparams.zero_point_tensor = round_zero_point(qparams.zero_point_tensor, grid.quant_min, grid.quant_max);
  return qparams;
}

}  // namespace

at::Tensor learned_forward_composite(const at::Tensor& self, const LearnedGrid& grid) {
  return forward_composite(kLearnedOp, self, rounded_qparams(self, grid), /*with_cut=*/false).value;
}

LearnedGradients learned_backward_composite(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                            Wanted wanted) {
  check_learned_gradient(grad, self);
  const auto qparams = rounded_qparams(self, grid);
  const auto axis = check_qparams(kLearnedOp, self, qparams);
  const auto terms = contributions_of(grad, self, qparams, grid.gradient == "clip", axis);
  const double factor = grad_factor(self, grid);
  LearnedGradients result{at::empty({0}, self.options()), at::empty({0}, grid.scale.options()),
                          at::empty({0}, grid.zero_point.options())};
  if (wanted[0]) {
    std::get<0>(result) = at::empty_like(self).copy_(terms.x);
  }
  if (wanted[1]) {
    std::get<1>(result) = (summed(terms.scale, axis, grid.scale) * factor).to(grid.scale.scalar_type());
  }
  if (wanted[2]) {
    const auto scale = qparams.scale_tensor.to(at::kFloat).to(at::kDouble).reshape(grid.zero_point.sizes());
    const auto sums = summed(terms.outside, axis, grid.zero_point);
    std::get<2>(result) = (sums * scale * -factor).to(grid.zero_point.scalar_type());
  }
  return result;
}

}  // namespace torchslim::quant::detail
