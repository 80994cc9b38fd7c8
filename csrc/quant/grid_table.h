// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <c10/util/SmallVector.h>

#include <cmath>
#include <optional>
#include <string>

#include "core/rounding.h"
#include "quant/fake_quantize.h"
#include "quant/fake_quantize_kernel.h"

namespace torchslim::quant::detail {

/// The numbers of a small tensor, read where they are if they are contiguous float32 or int32 on the CPU.
class Numbers {
 public:
  explicit Numbers(const at::Tensor& tensor) {
    const auto type = tensor.scalar_type();
    const bool in_place = tensor.is_cpu() && tensor.is_contiguous();
    if (in_place && type == at::kFloat) {
      floats_ = tensor.const_data_ptr<float>();
    } else if (in_place && type == at::kInt) {
      ints_ = tensor.const_data_ptr<int32_t>();
    } else {
      copy_ = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
      doubles_ = copy_.const_data_ptr<double>();
    }
  }

  double operator[](int64_t i) const {
    return floats_ != nullptr ? floats_[i] : ints_ != nullptr ? ints_[i] : doubles_[i];
  }

 private:
  at::Tensor copy_;
  const float* floats_ = nullptr;
  const int32_t* ints_ = nullptr;
  const double* doubles_ = nullptr;
};

/// The grid of each channel as kernels want it. The constructor checks everything.
class GridTable {
 public:
  GridTable(const char* op, const at::Tensor& self, const Qparams& qparams) {
    const auto axis = check_qparams(op, self, qparams);
    if (qparams.scale_tensor.defined()) {
      fill_from_tensors(op, qparams);
    } else {
      resize(1);
      set(0, qparams, static_cast<float>(qparams.scale), static_cast<float>(qparams.zero_point));
    }
    grids_.pass_above = static_cast<float>(qparams.clamp_min.value_or(-INFINITY));
    grids_.pass_below = static_cast<float>(qparams.clamp_max.value_or(INFINITY));
    grids_.float_values = !axis;
    axis_ = axis;
  }

  /// Returns the grids for a dense tensor with the shape and strides of `value`.
  ChannelGrids for_layout(const at::Tensor& value) const {
    ChannelGrids grids = grids_;
    grids.channels = axis_ ? value.size(*axis_) : 1;
    grids.inner = grids.channels > 1 ? value.stride(*axis_) : value.numel();
    return grids;
  }

 private:
  void resize(int64_t channels) {
    numbers_.resize(4 * channels);
    grids_.channels = channels;
    grids_.inverse_scale = numbers_.data();
    grids_.scale = grids_.inverse_scale + channels;
    grids_.low = grids_.scale + channels;
    grids_.high = grids_.low + channels;
  }

  void set(int64_t channel, const Qparams& qparams, float scale, float zero_point) {
    const auto channels = grids_.channels;
    core::StepGrid<float> grid{1.0f / scale, scale, static_cast<float>(qparams.quant_min) - zero_point,
                               static_cast<float>(qparams.quant_max) - zero_point};
    // Rounding keeps order, so a clamp of x is a clamp of its steps.
    const float low = grid.low;
    if (qparams.clamp_min) {
      const auto steps = core::steps_from_zero(static_cast<float>(*qparams.clamp_min), grid);
      grid.low = core::clamp(steps, low, grid.high);
    }
    if (qparams.clamp_max) {
      const auto steps = core::steps_from_zero(static_cast<float>(*qparams.clamp_max), grid);
      grid.high = core::clamp(steps, low, grid.high);
    }
    float* numbers = numbers_.data() + channel;
    numbers[0] = grid.inverse_scale;
    numbers[channels] = grid.scale;
    numbers[2 * channels] = grid.low;
    numbers[3 * channels] = grid.high;
  }

  void fill_from_tensors(const char* op, const Qparams& qparams) {
    const Numbers scales(qparams.scale_tensor);
    const Numbers zero_points(qparams.zero_point_tensor);
    resize(qparams.scale_tensor.numel());
    for (int64_t c = 0; c < grids_.channels; ++c) {
      const auto scale = static_cast<float>(scales[c]);
      double offset = zero_points[c];
      if (qparams.round_zero_point) {
        offset = core::clamp(core::round_half_even(offset), static_cast<double>(qparams.quant_min),
                             static_cast<double>(qparams.quant_max));
      }
      check_channel(op, qparams, c, scale, offset);
      set(c, qparams, scale, static_cast<float>(offset));
    }
  }

  void check_channel(const char* op, const Qparams& qparams, int64_t channel, float scale, double zero_point) const {
    const bool valid = std::isnormal(scale) && scale > 0 && zero_point == std::floor(zero_point) &&
                       zero_point >= static_cast<double>(qparams.quant_min) &&
                       zero_point <= static_cast<double>(qparams.quant_max);
    if (!valid) {  // the message costs more than the tensor: build it only now
      const auto where = qparams.axis ? " in channel " + std::to_string(channel) : std::string();
      check_scale(op, scale, where);
      check_zero_point(op, zero_point, qparams.quant_min, qparams.quant_max, where);
    }
  }

  c10::SmallVector<float, 64> numbers_;
  ChannelGrids grids_{};
  std::optional<int64_t> axis_;
};

}  // namespace torchslim::quant::detail
