// SPDX-License-Identifier: BSD-3-Clause
#include "quant/observed_rows.h"

#include <ATen/Dispatch.h>
#include <ATen/core/Formatting.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <limits>

#include "core/composite.h"
#include "quant/elementwise.h"
#include "quant/fake_quantize.h"
#include "quant/fake_quantize_kernel.h"
#include "quant/observe_kernel.h"

namespace torchslim::quant::detail {
namespace {

constexpr int64_t kShortRun = 16;  // runs of fewer elements are gathered into whole rows first
constexpr float kInfinite = std::numeric_limits<float>::infinity();

bool is_finite(Range range) { return std::isfinite(range.min) && std::isfinite(range.max); }

enum class Values { kAll, kFinite };

template <Values values, typename T>
Range range_of_row(const T* x, const Rows& rows, int64_t row) {
  Range range{kInfinite, -kInfinite};
  for (int64_t o = 0; o < rows.outer; ++o) {
    const T* run = x + (o * rows.rows + row) * rows.inner;
    float low, high;
    if constexpr (values == Values::kAll) {
      TORCHSLIM_CALL_KERNEL(range_span<T>, run, rows.inner, &low, &high);
    } else {
      TORCHSLIM_CALL_KERNEL(finite_range_span<T>, run, rows.inner, &low, &high);
    }
    widen(&range, low, high);
  }
  return {range.min + 0.0, range.max + 0.0};  // +0 for -0, as in range_cpu
}

template <Values values>
std::vector<Range> ranges_cpu(const Rows& rows) {
  std::vector<Range> ranges(rows.rows);
  const int64_t grain = std::max<int64_t>(kChunk / (rows.outer * rows.inner), 1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, rows.data.scalar_type(), "observed_ranges", [&] {
    const scalar_t* x = rows.data.const_data_ptr<scalar_t>();
    at::parallel_for(0, rows.rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        ranges[row] = range_of_row<values>(x, rows, row);
      }
    });
  });
  return ranges;
}

// The ranges where a row's elements lie in short runs, as a channels_last tensor's: those of the columns of a matrix whose
// rows are whole turns through the channels.
std::vector<Range> ranges_of_short_runs(const Rows& rows) {
  const int64_t width = rows.rows * rows.inner;
  const int64_t threads = at::get_num_threads();
  std::vector<float> low(threads * width, kInfinite);
  std::vector<float> high(threads * width, -kInfinite);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, rows.data.scalar_type(), "channel_ranges", [&] {
    const scalar_t* x = rows.data.const_data_ptr<scalar_t>();
    at::parallel_for(0, rows.outer, std::max<int64_t>(kChunk / width, 1), [&](int64_t begin, int64_t end) {
      const int64_t own = at::get_thread_num() * width;
      TORCHSLIM_CALL_KERNEL(column_range_span<scalar_t>, x + begin * width, end - begin, width, low.data() + own,
                            high.data() + own);
    });
  });
  std::vector<Range> ranges(rows.rows, {kInfinite, -kInfinite});
  for (int64_t i = 0; i < threads * width; ++i) {
    widen(&ranges[i % width / rows.inner], low[i], high[i]);
  }
  for (auto& range : ranges) {
    range = {range.min + 0.0, range.max + 0.0};
  }
  return ranges;
}

std::vector<Range> ranges_composite(const at::Tensor& x, Granularity how, Values values) {
  const auto all = matrix_of(x, how).to(at::kFloat);
  const auto kept = at::isfinite(all);
  const bool finite_only = values == Values::kFinite;
  const auto lows = at::amin(finite_only ? at::where(kept, all, kInfinite) : all, 1).to(at::kCPU).contiguous();
  const auto highs = at::amax(finite_only ? at::where(kept, all, -kInfinite) : all, 1).to(at::kCPU).contiguous();
  std::vector<Range> ranges(lows.numel());
  for (size_t row = 0; row < ranges.size(); ++row) {
    ranges[row] = {lows.const_data_ptr<float>()[row] + 0.0, highs.const_data_ptr<float>()[row] + 0.0};
  }
  return ranges;
}

std::vector<Range> ranges_of(const at::Tensor& x, const Rows& rows, Values values) {
  if (!x.is_cpu() || core::composite_on_cpu()) {
    return ranges_composite(x, rows.how, values);
  }
  if (rows.rows == 1 && values == Values::kAll) {
    return {range_cpu(x)};
  }
  return values == Values::kAll ? ranges_cpu<Values::kAll>(rows) : ranges_cpu<Values::kFinite>(rows);
}

}  // namespace

void widen(Range* range, float low, float high) {
  range->min = low < range->min || std::isnan(low) ? low : range->min;
  range->max = high > range->max || std::isnan(high) ? high : range->max;
}

c10::SymDimVector check_granularity(const char* op, const at::Tensor& x, Granularity how) {
  TORCH_CHECK_VALUE(how.axis || !how.group_size, op, ": group_size ", how.group_size.value_or(0),
                    " needs `axis`, the dimension that is divided into groups");
  if (!how.axis) {
    return {};
  }
  const int64_t axis = check_axis(op, *how.axis, x.dim());
  if (!how.group_size) {
    return {x.sym_size(axis)};
  }
  const int64_t group = *how.group_size;
  TORCH_CHECK_VALUE(group >= 1, op, ": group_size must be >= 1, got ", group);
  TORCH_CHECK_VALUE(x.sym_size(axis) % group == 0, op, ": group_size must divide dimension ", axis, " of size ",
                    x.sym_size(axis), ", got ", group);
  c10::SymDimVector shape(x.sym_sizes().begin(), x.sym_sizes().end());
  shape[axis] = shape[axis] / group;
  return shape;
}

std::string Rows::name(int64_t row) const {
  if (!how.axis) {
    return "";
  }
  return (how.group_size ? " in group " : " in channel ") + std::to_string(row);
}

at::Tensor matrix_of(const at::Tensor& x, Granularity how) {
  if (!how.axis) {
    return x.reshape({1, -1});
  }
  const int64_t axis = *how.axis < 0 ? *how.axis + x.dim() : *how.axis;
  if (!how.group_size) {
    return x.movedim(axis, 0).reshape({x.size(axis), -1});
  }
  const int64_t group = *how.group_size;
  return x.unflatten(axis, {x.size(axis) / group, group}).movedim(axis + 1, -1).reshape({-1, group});
}

Rows rows_of(const at::Tensor& x, Granularity how) {
  const int64_t n = x.numel();
  if (!how.axis) {
    return {x.is_non_overlapping_and_dense() ? x : x.contiguous(), 1, 1, n, how};
  }
  const int64_t axis = *how.axis < 0 ? *how.axis + x.dim() : *how.axis;
  const int64_t channels = x.size(axis);
  // In a dense tensor, element i in memory belongs to channel i / stride % channels.
  if (!how.group_size && channels > 1 && x.is_non_overlapping_and_dense() && x.stride(axis) >= kShortRun) {
    return {x, n / (channels * x.stride(axis)), channels, x.stride(axis), how};
  }
  const auto matrix = matrix_of(x, how).contiguous();
  return {matrix, 1, matrix.size(0), matrix.size(1), how};
}

std::vector<Range> channel_ranges(const at::Tensor& x, int64_t axis) {
  const Granularity how{axis, std::nullopt};
  if (!x.is_cpu() || core::composite_on_cpu()) {
    return ranges_composite(x, how, Values::kAll);
  }
  const int64_t channels = x.size(axis);
  if (channels > 1 && x.is_non_overlapping_and_dense() && x.stride(axis) < kShortRun) {
    const int64_t inner = x.stride(axis);
    return ranges_of_short_runs({x, x.numel() / (channels * inner), channels, inner, how});
  }
  return ranges_of(x, rows_of(x, how), Values::kAll);
}

std::vector<Range> observed_ranges(const char* op, const at::Tensor& x, const Rows& rows, bool skip_non_finite) {
  auto ranges = ranges_of(x, rows, Values::kAll);
  for (size_t row = 0; row < ranges.size(); ++row) {
    if (is_finite(ranges[row])) {
      continue;
    }
    if (skip_non_finite) {
      return ranges_of(x, rows, Values::kFinite);
    }
    TORCH_CHECK_VALUE(false, op, ": the observed tensor holds NaN or infinity (in float32)",
                      rows.name(static_cast<int64_t>(row)), ", range [", ranges[row].min, ", ", ranges[row].max,
                      "]; the observer is unchanged. Mend the data, or leave such values out: non_finite=\"skip\"");
  }
  return ranges;
}

}  // namespace torchslim::quant::detail
