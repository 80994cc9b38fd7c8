// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/quant/histogram_range.h>

// The searches of the public header, below the dispatcher: on any device, and shapes alone on Meta.
namespace torchslim::quant::detail {

RangeTensors l2_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                      int64_t levels);
RangeTensors percentile_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                              double percentile);
RangeTensors mse_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                       int64_t quant_min, int64_t quant_max, bool symmetric);
RangeTensors entropy_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                           int64_t quant_min, int64_t quant_max, bool symmetric);

}  // namespace torchslim::quant::detail
