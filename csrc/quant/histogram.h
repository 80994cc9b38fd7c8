// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/observer.h"

// Where the bins of an observed histogram lie.
namespace torchslim::quant::detail {

/// Bin j is [first + j, first + j + 1) · 2^exponent.
struct BinLayout {
  int exponent;
  int64_t first;

  double width() const;
  /// Returns the bin that holds a value.
  int64_t bin_of(double value) const;
};

/// Returns the layout of `bins` bins that hold a finite range: a function of the range alone. A range that holds another
/// has bins that are whole numbers of the other's.
BinLayout bin_layout(Range range, int64_t bins);

/// Adds the counts of a histogram of the range `from_range` to one of a range that holds it. Throws if counts lie outside.
void add_counts(const char* op, const int64_t* from, Range from_range, int64_t* to, Range to_range, int64_t bins);

/// Throws unless `bins` is in [2, 2^20].
void check_bins(const char* op, const c10::SymInt& bins);
/// Throws unless `percentile` is in (50, 100].
void check_percentile(const char* op, double percentile);
/// Throws unless a range that is not empty is finite.
void check_seen(const char* op, Range range);
/// Throws unless the state of a histogram makes sense; `shape` is that of min_val.
void check_histogram(const char* op, const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                     c10::SymIntArrayRef shape, c10::Device device);

/// Returns histogram, laid out for the ranges `from`, laid out for the ranges `to`: a new contiguous tensor on the CPU.
at::Tensor in_wider_bins(const char* op, const at::Tensor& histogram, const RangeTable& from, const RangeTable& to);

}  // namespace torchslim::quant::detail
