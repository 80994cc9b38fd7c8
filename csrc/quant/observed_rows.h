// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "quant/observer.h"

// How the observers see a tensor: rows, each with a range and a grid of its own.
namespace torchslim::quant::detail {

/// What has a grid of its own: the tensor (both empty), each index of `axis`, or each run of `group_size` along `axis`.
struct Granularity {
  std::optional<int64_t> axis;
  std::optional<int64_t> group_size;
};

/// Throws unless `how` fits x. Returns the shape of a state of x: (), (x.size(axis)), or the shape of x with the groups
/// of `axis` in its place.
c10::SymDimVector check_granularity(const char* op, const at::Tensor& x, Granularity how);

/// Row r of a tensor is, for each o < outer, the `inner` elements of `data` from ((o·rows) + r)·inner on.
struct Rows {
  at::Tensor data;  // dense
  int64_t outer;
  int64_t rows;
  int64_t inner;
  Granularity how;

  /// The end of a message about a row: "", " in channel 3" or " in group 3".
  std::string name(int64_t row) const;
};

/// Widens `range` so that it holds low and high; NaN stays.
void widen(Range* range, float low, float high);

/// Returns the rows of x, which is not empty, without a copy where its layout allows.
Rows rows_of(const at::Tensor& x, Granularity how);

/// The same as a matrix (rows, elements of a row), for composites of ATen's ops.
at::Tensor matrix_of(const at::Tensor& x, Granularity how);

/// Returns the range of each row, as float32. Where it is not finite: throws, or leaves those values out
/// (`skip_non_finite`); a row without any finite value has the range (inf, -inf).
std::vector<Range> observed_ranges(const char* op, const at::Tensor& x, const Rows& rows, bool skip_non_finite);

/// Returns the range of each index of dimension `axis` (not negative) of x, which is not empty, in one read of a dense
/// tensor; NaN where the channel holds NaN.
std::vector<Range> channel_ranges(const at::Tensor& x, int64_t axis);

}  // namespace torchslim::quant::detail
