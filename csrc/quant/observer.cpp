// SPDX-License-Identifier: BSD-3-Clause
#include "quant/observer.h"

#include <ATen/core/Formatting.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/fake_quantize.h"

namespace torchslim::quant::detail {

void check_grid(const char* op, int64_t quant_min, int64_t quant_max) {
  check_range(op, quant_min, quant_max);
  TORCH_CHECK_VALUE(quant_min < quant_max, op, ": the grid has one point: quant_min = quant_max = ", quant_min);
}

void check_state(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType type,
                 c10::SymIntArrayRef shape, c10::Device device) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == type, op, ": ", name, " must be ", type, ", got ", tensor.scalar_type());
  const bool fits = shape.empty() ? tensor.sym_numel() == 1 : tensor.sym_sizes() == shape;
  TORCH_CHECK_VALUE(fits, op, ": ", name, " must have ", shape.empty() ? "one element, shape " : "shape ", shape,
                    ", got shape ", tensor.sym_sizes());
  check_device(op, name, tensor, device);
}

void check_averaging_constant(const char* op, double averaging_constant, bool keep_extremes) {
  TORCH_CHECK_VALUE(keep_extremes || (averaging_constant > 0 && averaging_constant <= 1), op,
                    ": averaging_constant must be in (0, 1], got ", averaging_constant);
}

void check_observer(const char* op, const ObserverState& state, const ObserverRule& rule, c10::SymIntArrayRef shape,
                    c10::Device device) {
  check_grid(op, rule.quant_min, rule.quant_max);
  check_averaging_constant(op, rule.averaging_constant, rule.keep_extremes);
  check_state(op, "min_val", state.min_val, at::kFloat, shape, device);
  check_state(op, "max_val", state.max_val, at::kFloat, shape, device);
  check_state(op, "scale", state.scale, at::kFloat, shape, device);
  check_state(op, "zero_point", state.zero_point, at::kInt, shape, device);
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

RangeTable::RangeTable(const at::Tensor& min_val, const at::Tensor& max_val)
    : low_(min_val.detach().to(at::kCPU).clone(at::MemoryFormat::Contiguous)),
      high_(max_val.detach().to(at::kCPU).clone(at::MemoryFormat::Contiguous)) {}

void RangeTable::set(int64_t row, Range range) {
  low_.mutable_data_ptr<float>()[row] = static_cast<float>(range.min);
  high_.mutable_data_ptr<float>()[row] = static_cast<float>(range.max);
}

void RangeTable::write_to(const at::Tensor& min_val, const at::Tensor& max_val) const {
  min_val.copy_(low_);
  max_val.copy_(high_);
}

GridNumbers channel_grid(Range range, int64_t quant_min, int64_t quant_max, bool symmetric) {
  const auto grid = grid_of(range.min, range.max, quant_min, quant_max, symmetric);
  if (grid.scale < std::numeric_limits<float>::min()) {
    return {1.0f, grid_of(0, 0, quant_min, quant_max, symmetric).zero_point};
  }
  return grid;
}

}  // namespace torchslim::quant::detail
