// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Dispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>
#include <torchslim/quant/observe_histogram.h>

#include <cmath>
#include <mutex>

#include "core/composite.h"
#include "quant/elementwise.h"
#include "quant/fake_quantize.h"
#include "quant/fake_quantize_kernel.h"
#include "quant/histogram.h"
#include "quant/observe_kernel.h"
#include "quant/observed_rows.h"

namespace torchslim::quant {
namespace {

constexpr const char* kHistogramOp = "torchslim::observe_histogram";

using detail::Granularity;
using detail::kChunk;
using detail::RangeTable;
using detail::Rows;

Granularity check_observed_histogram(const at::Tensor& self, const at::Tensor& histogram, const at::Tensor& min_val,
                                     const at::Tensor& max_val, std::optional<int64_t> axis,
                                     std::optional<int64_t> group_size) {
  const Granularity how{axis, group_size};
  detail::check_input(kHistogramOp, self);
  const auto shape = detail::check_granularity(kHistogramOp, self, how);
  detail::check_histogram(kHistogramOp, histogram, min_val, max_val, shape, self.device());
  return how;
}

// Counts of one thread, added to the shared ones now and then: whole numbers have the same sum in any order.
class Counts {
 public:
  Counts(int64_t bins, int ways) : bins_(bins), ways_(ways), counts_(ways * (bins + 1)) {}

  template <typename T>
  void count(const T* x, int64_t n, const BinSpan& span) {
    TORCHSLIM_CALL_KERNEL(count_bins_span<T>, x, n, span, counts_.data(), ways_);
  }

  void add_to(int64_t* sums) {
    for (int way = 0; way < ways_; ++way) {
      for (int64_t j = 0; j < bins_; ++j) {
        sums[j] += counts_[way * (bins_ + 1) + j];
      }
    }
    std::fill(counts_.begin(), counts_.end(), 0);
  }

 private:
  int64_t bins_;
  int ways_;
  std::vector<uint32_t> counts_;
};

BinSpan span_of(detail::Range range, int64_t bins) {
  const auto layout = detail::bin_layout(range, bins);
  return {static_cast<float>(1 / layout.width()), static_cast<float>(layout.first), static_cast<int32_t>(bins)};
}

// All elements share one histogram: threads take parts of it, each chunk read twice while it is in the cache. Returns
// the range, NaN where one is among them.
template <typename T>
detail::Range count_one_row(const T* x, int64_t n, const BinSpan& span, int64_t* sums) {
  constexpr int64_t kMost = int64_t{1} << 31;  // what 32 bits of a count surely hold
  detail::Range range{INFINITY, -INFINITY};
  std::mutex adding;
  detail::for_each_chunk(n, [&](int64_t begin, int64_t end) {
    Counts counts(span.bins, kCountWays);
    detail::Range seen{INFINITY, -INFINITY};
    for (int64_t uncounted = 0; begin < end; begin += kChunk) {
      const int64_t size = std::min(kChunk, end - begin);
      float low, high;
      TORCHSLIM_CALL_KERNEL(range_span<T>, x + begin, size, &low, &high);
      detail::widen(&seen, low, high);
      counts.count(x + begin, size, span);
      uncounted += size;
      if (uncounted > kMost - kChunk || begin + size == end) {
        const std::lock_guard<std::mutex> lock(adding);
        counts.add_to(sums);
        uncounted = 0;
      }
    }
    const std::lock_guard<std::mutex> lock(adding);
    detail::widen(&range, static_cast<float>(seen.min), static_cast<float>(seen.max));
  });
  return range;
}

// Each row has its own histogram: threads take rows.
template <typename T>
void count_rows(const T* x, const Rows& rows, const RangeTable& ranges, int64_t bins, int64_t* sums) {
  const int64_t grain = std::max<int64_t>(kChunk / (rows.outer * rows.inner), 1);
  const int ways = rows.outer * rows.inner > 8 * bins ? kCountWays : 1;
  at::parallel_for(0, rows.rows, grain, [&](int64_t begin, int64_t end) {
    Counts counts(bins, ways);
    for (int64_t row = begin; row < end; ++row) {
      if (ranges.get(row).min > ranges.get(row).max) {
        continue;  // all was skipped
      }
      const auto span = span_of(ranges.get(row), bins);
      for (int64_t o = 0; o < rows.outer; ++o) {
        counts.count(x + (o * rows.rows + row) * rows.inner, rows.inner, span);
      }
      counts.add_to(sums + row * bins);
    }
  });
}

void count_cpu(const Rows& rows, const RangeTable& ranges, int64_t bins, int64_t* sums) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, rows.data.scalar_type(), "observe_histogram", [&] {
    const scalar_t* x = rows.data.const_data_ptr<scalar_t>();
    if (rows.rows == 1) {
      if (ranges.get(0).min <= ranges.get(0).max) {
        count_one_row(x, rows.data.numel(), span_of(ranges.get(0), bins), sums);
      }
    } else {
      count_rows(x, rows, ranges, bins, sums);
    }
  });
}

void count_composite(const at::Tensor& x, const Rows& rows, const RangeTable& ranges, int64_t bins, int64_t* sums) {
  auto spans = at::empty({3, rows.rows, 1}, at::kFloat);
  for (int64_t row = 0; row < rows.rows; ++row) {
    const bool seen = ranges.get(row).min <= ranges.get(row).max;
    const auto span = seen ? span_of(ranges.get(row), bins) : BinSpan{1, 0, 0};
    spans[0][row] = span.inverse_width;
    spans[1][row] = span.first;
    spans[2][row] = span.bins;
  }
  spans = spans.to(x.device());
  const auto values = detail::matrix_of(x, rows.how).to(at::kFloat);
  auto bin = values.mul(spans[0]).floor_();
  bin.sub_(bin.eq(0).logical_and_(values.lt(0)).to(at::kFloat)).sub_(spans[1]);  // where the product underflowed
  const auto inside = bin.ge(0).logical_and_(bin.lt(spans[2]));
  const auto first = at::arange(rows.rows, bin.options().dtype(at::kLong)).unsqueeze(1).mul_(bins);
  const auto places = bin.nan_to_num(0, 0, 0).to(at::kLong).add_(first).masked_select(inside);
  const auto counts = at::bincount(places, {}, rows.rows * bins).to(at::kCPU);
  for (int64_t i = 0; i < counts.numel(); ++i) {
    sums[i] += counts.const_data_ptr<int64_t>()[i];
  }
}

// Nearly every batch lies in the range that was seen before: one read counts it. Returns false, and changes nothing, if
// this one does not.
bool count_in_known_range(const Rows& rows, const at::Tensor& histogram, const RangeTable& known) {
  const auto range = known.get(0);
  if (range.min > range.max) {
    return false;
  }
  auto counts = detail::in_wider_bins(kHistogramOp, histogram, known, known);
  const auto span = span_of(range, counts.size(-1));
  detail::Range seen;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, rows.data.scalar_type(), "observe_histogram", [&] {
    seen = count_one_row(rows.data.const_data_ptr<scalar_t>(), rows.data.numel(), span,
                         counts.mutable_data_ptr<int64_t>());
  });
  const bool inside = seen.min >= range.min && seen.max <= range.max;
  if (inside) {
    histogram.copy_(counts);
  }
  return inside;
}

// Nothing is written before everything has been checked and computed.
void observe_histogram_op(const at::Tensor& self, const at::Tensor& histogram, const at::Tensor& min_val,
                          const at::Tensor& max_val, std::optional<int64_t> axis, std::optional<int64_t> group_size,
                          bool skip_non_finite) {
  const auto how = check_observed_histogram(self, histogram, min_val, max_val, axis, group_size);
  if (self.numel() == 0) {
    return;
  }
  const auto rows = detail::rows_of(self, how);
  const RangeTable before(min_val, max_val);
  const bool on_cpu = self.is_cpu() && !core::composite_on_cpu();
  if (on_cpu && rows.rows == 1 && count_in_known_range(rows, histogram, before)) {
    return;
  }
  const auto seen = detail::observed_ranges(kHistogramOp, self, rows, skip_non_finite);
  RangeTable after(min_val, max_val);
  for (int64_t row = 0; row < after.size(); ++row) {
    if (seen[row].min <= seen[row].max) {
      const auto range = before.get(row);
      after.set(row, {std::min(range.min, seen[row].min), std::max(range.max, seen[row].max)});
    }
  }
  auto counts = detail::in_wider_bins(kHistogramOp, histogram, before, after);
  if (on_cpu) {
    count_cpu(rows, after, counts.size(-1), counts.mutable_data_ptr<int64_t>());
  } else {
    count_composite(self, rows, after, counts.size(-1), counts.mutable_data_ptr<int64_t>());
  }
  histogram.copy_(counts);
  after.write_to(min_val, max_val);
}

void observe_histogram_meta(const at::Tensor& self, const at::Tensor& histogram, const at::Tensor& min_val,
                            const at::Tensor& max_val, std::optional<int64_t> axis, std::optional<int64_t> group_size,
                            bool skip_non_finite) {
  check_observed_histogram(self, histogram, min_val, max_val, axis, group_size);
}

void observe_histogram_autograd(const at::Tensor& self, const at::Tensor& histogram, const at::Tensor& min_val,
                                const at::Tensor& max_val, std::optional<int64_t> axis,
                                std::optional<int64_t> group_size, bool skip_non_finite) {
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    observe_histogram(self, histogram, min_val, max_val, axis, group_size, skip_non_finite);
  }
  for (const auto& changed : {histogram, min_val, max_val}) {
    torch::autograd::impl::bump_version(changed);
  }
}

}  // namespace

void observe_histogram(const at::Tensor& x, const at::Tensor& histogram, const at::Tensor& min_val,
                       const at::Tensor& max_val, std::optional<int64_t> axis, std::optional<int64_t> group_size,
                       bool skip_non_finite) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kHistogramOp, "").typed<decltype(observe_histogram_op)>();
  op.call(x, histogram, min_val, max_val, axis, group_size, skip_non_finite);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  m.def(
      "observe_histogram(Tensor input, Tensor(a!) histogram, Tensor(b!) min_val, Tensor(c!) max_val, int? axis=None, "
      "int? group_size=None, bool skip_non_finite=False) -> ()",
      {at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides});
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  m.impl("observe_histogram", TORCH_FN(observe_histogram_op));
}
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { m.impl("observe_histogram", TORCH_FN(observe_histogram_meta)); }
TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("observe_histogram", TORCH_FN(observe_histogram_autograd)); }
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) { m.impl("observe_histogram", torch::CppFunction::makeFallthrough()); }

}  // namespace torchslim::quant
