// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

#include "quant/fake_quantize.h"

// What the learned fake-quantise op shares below the dispatcher.
namespace torchslim::quant::detail {

constexpr const char* kLearnedOp = "torchslim::learned_fake_quantize";

/// The arguments of the op behind its input, as they come in.
struct LearnedGrid {
  const at::Tensor& scale;
  const at::Tensor& zero_point;
  int64_t quant_min;
  int64_t quant_max;
  std::optional<int64_t> axis;
  std::string_view grad_scale;
  std::string_view gradient;
};

/// Which gradients are wanted: those of self, scale, zero_point.
using Wanted = std::array<bool, 3>;
/// The gradients, in that order; one that is not wanted has no elements.
using LearnedGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// Returns the zero point rounded half to even and clamped, as float32; NaN stays, for a check.
at::Tensor round_zero_point(const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max);
/// Returns the grid for the fixed ops; its zero point is still to be rounded, forward and backward alike. Throws if the
/// devices differ, or a choice is unknown.
Qparams as_qparams(const at::Tensor& self, const LearnedGrid& grid);
/// Returns the factor that grad_scale puts on the gradients of scale and zero point. Throws if it is unknown.
double grad_factor(const at::Tensor& self, const LearnedGrid& grid);

/// Throws unless grad has the shape and type of self.
void check_learned_gradient(const at::Tensor& grad, const at::Tensor& self);

using LearnedForward = at::Tensor (*)(const at::Tensor& self, const LearnedGrid& grid);
at::Tensor learned_forward_cpu(const at::Tensor& self, const LearnedGrid& grid);
at::Tensor learned_forward_composite(const at::Tensor& self, const LearnedGrid& grid);
at::Tensor learned_forward_meta(const at::Tensor& self, const LearnedGrid& grid);

using LearnedBackward = LearnedGradients (*)(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                             Wanted wanted);
LearnedGradients learned_backward_cpu(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                      Wanted wanted);
LearnedGradients learned_backward_composite(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                            Wanted wanted);
LearnedGradients learned_backward_meta(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                       Wanted wanted);

/// Calls torchslim::_learned_fake_quantize_backward.
LearnedGradients call_learned_backward(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                       Wanted wanted);

}  // namespace torchslim::quant::detail
