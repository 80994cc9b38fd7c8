// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/quant/qparams.h>

#include <string>

// What moves a range, below the dispatcher.
namespace torchslim::quant::detail {

/// Smallest and largest value of a tensor; NaN if it holds NaN.
struct Range {
  double min;
  double max;
};

/// The grid of a range, widened to hold 0, without the lower limit of the scale and without checks.
GridNumbers grid_of(double min_val, double max_val, int64_t quant_min, int64_t quant_max, bool symmetric);
/// quant_min − rint(low / scale), clamped.
int32_t zero_point_of(double low, float scale, int64_t quant_min, int64_t quant_max);

/// What an observer has seen and the grid that follows from it: float32, float32, float32, int32.
struct ObserverState {
  const at::Tensor& min_val;
  const at::Tensor& max_val;
  const at::Tensor& scale;
  const at::Tensor& zero_point;
};

/// How an observer moves: by a moving average, or (`keep_extremes`) only outwards.
struct ObserverRule {
  double averaging_constant;
  bool keep_extremes;
  int64_t quant_min;
  int64_t quant_max;
  bool symmetric;
};

/// Throws unless quant_min < quant_max, both within ±2^23.
void check_grid(const char* op, int64_t quant_min, int64_t quant_max);
/// Throws unless `tensor`, named `name`, has that type, shape (empty: one element) and device.
void check_state(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType type,
                 c10::SymIntArrayRef shape, c10::Device device);
/// Throws unless averaging_constant is in (0, 1], or ignored.
void check_averaging_constant(const char* op, double averaging_constant, bool keep_extremes);
/// Throws unless the state and the rule make sense; `shape` is what the state's tensors must have.
void check_observer(const char* op, const ObserverState& state, const ObserverRule& rule, c10::SymIntArrayRef shape,
                    c10::Device device);

/// Throws if the observed range is not finite; `where` ends the first half of the message.
void check_finite(const char* op, Range seen, const std::string& where = "");

/// Returns the state's range after it has met `seen`; the first range sets it.
Range moved_range(Range state, Range seen, const ObserverRule& rule);

/// The ranges of a state, float32 tensors of one shape on any device, to read and to write together.
class RangeTable {
 public:
  RangeTable(const at::Tensor& min_val, const at::Tensor& max_val);

  int64_t size() const { return low_.numel(); }
  Range get(int64_t row) const { return {low_.const_data_ptr<float>()[row], high_.const_data_ptr<float>()[row]}; }
  void set(int64_t row, Range range);
  void write_to(const at::Tensor& min_val, const at::Tensor& max_val) const;

 private:
  at::Tensor low_, high_;  // contiguous, on the CPU
};

/// The grid of one channel or group: as for weights, its scale has no lower limit, and is 1 where the range is 0.
GridNumbers channel_grid(Range range, int64_t quant_min, int64_t quant_max, bool symmetric);

/// Returns the range of a tensor that is not empty, the same bits for any number of threads.
Range range_cpu(const at::Tensor& x);

}  // namespace torchslim::quant::detail
