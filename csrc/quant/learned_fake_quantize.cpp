// SPDX-License-Identifier: BSD-3-Clause
#include "quant/learned_fake_quantize.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>
#include <torchslim/quant/learned_fake_quantize.h>

#include <algorithm>
#include <cmath>

namespace torchslim::quant {
namespace detail {

at::Tensor round_zero_point(const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  return zero_point.to(at::kFloat).round().clamp(quant_min, quant_max);
}

Qparams as_qparams(const at::Tensor& self, const LearnedGrid& grid) {
  TORCH_CHECK_VALUE(grid.gradient == "rounded" || grid.gradient == "clip", kLearnedOp,
                    ": gradient must be `rounded` or `clip`, got `", grid.gradient, "`");
  grad_factor(self, grid);
  return {.scale_tensor = grid.scale,
          .zero_point_tensor = grid.zero_point,
          .quant_min = grid.quant_min,
          .quant_max = grid.quant_max,
          .axis = grid.axis,
          .round_zero_point = true};
}

double grad_factor(const at::Tensor& self, const LearnedGrid& grid) {
  if (grid.grad_scale == "none") {
    return 1.0;
  }
  TORCH_CHECK_VALUE(grid.grad_scale == "numel" || grid.grad_scale == "per_channel" || grid.grad_scale == "features",
                    kLearnedOp, ": grad_scale must be `none`, `numel`, `per_channel` or `features`, got `",
                    grid.grad_scale, "`");
  TORCH_CHECK_VALUE(grid.quant_max > 0, kLearnedOp, ": grad_scale `", grid.grad_scale, "` needs quant_max > 0, got ",
                    grid.quant_max, "; use `none`");
  if (self.is_meta()) {
    return 1.0;  // sizes may be symbols, and no value is computed
  }
  double share = 1;
  if (grid.grad_scale == "per_channel" && grid.axis) {
    share = static_cast<double>(self.size(check_axis(kLearnedOp, *grid.axis, self.dim())));
  } else if (grid.grad_scale == "features" && self.dim() > 0) {
    share = static_cast<double>(self.size(0));
  }
  const double elements = static_cast<double>(self.numel()) / std::max(share, 1.0);
  return 1.0 / std::sqrt(std::max(elements, 1.0) * static_cast<double>(grid.quant_max));
}

void check_learned_gradient(const at::Tensor& grad, const at::Tensor& self) {
  TORCH_CHECK_VALUE(grad.sym_sizes() == self.sym_sizes() && grad.scalar_type() == self.scalar_type(),
                    "torchslim::_learned_fake_quantize_backward: grad must be ", self.scalar_type(), " of shape ",
                    self.sym_sizes(), " as self, got ", grad.scalar_type(), " of shape ", grad.sym_sizes());
}

at::Tensor learned_forward_meta(const at::Tensor& self, const LearnedGrid& grid) {
  check_qparams(kLearnedOp, self, as_qparams(self, grid));
  return at::empty_like(self);
}

LearnedGradients learned_backward_meta(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                       Wanted wanted) {
  check_learned_gradient(grad, self);
  const auto like = [](const at::Tensor& tensor, bool is_wanted) {
    return is_wanted ? at::empty_like(tensor) : at::empty({0}, tensor.options());
  };
  return {like(self, wanted[0]), like(grid.scale, wanted[1]), like(grid.zero_point, wanted[2])};
}

}  // namespace detail

namespace {

using detail::LearnedBackward;
using detail::LearnedForward;
using detail::LearnedGradients;

template <LearnedForward forward>
at::Tensor learned_op(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                      int64_t quant_max, std::optional<int64_t> axis, std::string_view grad_scale,
                      std::string_view gradient) {
  return forward(self, {scale, zero_point, quant_min, quant_max, axis, grad_scale, gradient});
}

template <LearnedBackward backward>
LearnedGradients learned_backward_op(const at::Tensor& grad, const at::Tensor& self, const at::Tensor& scale,
                                     const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                     std::optional<int64_t> axis, std::string_view grad_scale,
                                     std::string_view gradient, std::array<bool, 3> wanted) {
  return backward(grad, self, {scale, zero_point, quant_min, quant_max, axis, grad_scale, gradient}, wanted);
}

template <LearnedForward forward, LearnedBackward backward>
void register_learned(torch::Library& m) {
  m.impl("learned_fake_quantize", TORCH_FN(learned_op<forward>));
  m.impl("_learned_fake_quantize_backward", TORCH_FN(learned_backward_op<backward>));
}

}  // namespace

at::Tensor learned_fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                                 int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                                 std::string_view grad_scale, std::string_view gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(detail::kLearnedOp, "")
                             .typed<decltype(learned_op<detail::learned_forward_meta>)>();
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, grad_scale, gradient);
}

LearnedGradients detail::call_learned_backward(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                               Wanted wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_learned_fake_quantize_backward", "")
                             .typed<decltype(learned_backward_op<learned_backward_meta>)>();
  return op.call(grad, self, grid.scale, grid.zero_point, grid.quant_min, grid.quant_max, grid.axis, grid.grad_scale,
                 grid.gradient, wanted);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides};
  m.def(
      "learned_fake_quantize(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None, str grad_scale=\"none\", str gradient=\"rounded\") -> Tensor",
      tags);
  m.def(
      "_learned_fake_quantize_backward(Tensor grad, Tensor self, Tensor scale, Tensor zero_point, int quant_min, "
      "int quant_max, int? axis, str grad_scale, str gradient, bool[3] wanted) -> (Tensor, Tensor, Tensor)",
      tags);
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) {
  register_learned<detail::learned_forward_cpu, detail::learned_backward_cpu>(m);
}

TORCH_LIBRARY_IMPL(torchslim, Meta, m) {
  register_learned<detail::learned_forward_meta, detail::learned_backward_meta>(m);
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  register_learned<detail::learned_forward_composite, detail::learned_backward_composite>(m);
}

}  // namespace torchslim::quant
