// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>

namespace torchslim::quant {

/// A range, or one for each channel or group: float32 tensors of one shape.
struct TORCHSLIM_API RangeTensors {
  at::Tensor min_val;
  at::Tensor max_val;
};

// The functions below choose a range to quantise from what `observe_histogram` counted: state (histogram, min_val,
// max_val), each row of it by itself. Values count as spread evenly over their bin. The result lies within [min_val,
// max_val], widened to hold 0 (`mse_range`: if symmetric, it is [-t, t]); it is (inf, -inf) where nothing was seen.
// Each is an op of its name, one node in a captured graph. No gradient; the same bits for any number of threads. They throw
// c10::ValueError where a state or an argument makes no sense.

/// Returns torch.ao's range (`HistogramObserver`): it drops 1e-5 of the values at a time, on the side where that drops more
/// bins, until the squared error of quantising to `levels` equal steps grows. Costs O(levels) a step, from sums of moments.
TORCHSLIM_API RangeTensors l2_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                                    int64_t levels);

/// Returns the range that leaves out the share 1 − percentile/100 of the values on each side; percentile in (50, 100].
TORCHSLIM_API RangeTensors percentile_range(const at::Tensor& histogram, const at::Tensor& min_val,
                                            const at::Tensor& max_val, double percentile);

/// Returns the range whose grid (`choose_qparams` without its lowest scale) has the least squared error. Both limits shrink
/// by whole 1/256 parts, first by 16 parts at a time, then by 4 and by 1 around the best.
TORCHSLIM_API RangeTensors mse_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                                     int64_t quant_min, int64_t quant_max, bool symmetric);

/// Returns [-t, t] within what was seen, t the multiple of the bins' width that loses the least information: with P the
/// histogram of |x| below t, what lies beyond in its last bin, and Q the one below t spread evenly over the bins with values
/// of each of n steps (1e-4 of a value where those have none), t minimises KL(P ‖ Q). n is half of the codes, or all of
/// them if the values have one sign and the grid is not symmetric. Nothing is cut if there are no more bins than steps.
/// Migacz 2017, "8-bit inference with TensorRT".
TORCHSLIM_API RangeTensors entropy_range(const at::Tensor& histogram, const at::Tensor& min_val,
                                         const at::Tensor& max_val, int64_t quant_min, int64_t quant_max,
                                         bool symmetric);

}  // namespace torchslim::quant
