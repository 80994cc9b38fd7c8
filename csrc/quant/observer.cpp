// SPDX-License-Identifier: BSD-3-Clause
#include "quant/observer.h"

#include <ATen/core/Formatting.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

#include "quant/fake_quantize.h"

namespace torchslim::quant::detail {
namespace {

void check_state(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType type,
                 c10::SymIntArrayRef shape) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == type, op, ": ", name, " must be ", type, ", got ", tensor.scalar_type());
  const bool fits = shape.empty() ? tensor.sym_numel() == 1 : tensor.sym_sizes() == shape;
  TORCH_CHECK_VALUE(fits, op, ": ", name, " must have ", shape.empty() ? "one element, shape " : "shape ", shape,
                    ", got shape ", tensor.sym_sizes());
}

}  // namespace

void check_observer(const char* op, const ObserverState& state, const ObserverRule& rule, c10::SymIntArrayRef shape) {
  check_range(op, rule.quant_min, rule.quant_max);
  TORCH_CHECK_VALUE(rule.quant_min < rule.quant_max, op,
                    ": the grid has one point: quant_min = quant_max = ", rule.quant_min);
  TORCH_CHECK_VALUE(rule.keep_extremes || (rule.averaging_constant > 0 && rule.averaging_constant <= 1), op,
                    ": averaging_constant must be in (0, 1], got ", rule.averaging_constant);
  check_state(op, "min_val", state.min_val, at::kFloat, shape);
  check_state(op, "max_val", state.max_val, at::kFloat, shape);
  check_state(op, "scale", state.scale, at::kFloat, shape);
  check_state(op, "zero_point", state.zero_point, at::kInt, shape);
}

void check_finite(const char* op, Range seen, const std::string& where) {
  TORCH_CHECK_VALUE(std::isfinite(seen.min) && std::isfinite(seen.max), op,
                    ": the observed tensor holds NaN or infinity", where, ", range [", seen.min, ", ", seen.max,
                    "]; the observer is unchanged. Lower the learning rate, or disable the observer");
}

Range moved_range(Range state, Range seen, const ObserverRule& rule) {
  if (state.min == INFINITY && state.max == -INFINITY) {
    return seen;
  }
  if (rule.keep_extremes) {
    return {std::min(state.min, seen.min), std::max(state.max, seen.max)};
  }
  return {state.min + rule.averaging_constant * (seen.min - state.min),
          state.max + rule.averaging_constant * (seen.max - state.max)};
}

}  // namespace torchslim::quant::detail
