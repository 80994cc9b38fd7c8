// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"

namespace torchslim::deploy {

/// One image through one window operation: sizes of both sides and the window. Planes are (channels, height, width).
struct WindowShape {
  int64_t in_channels, in_height, in_width;
  int64_t out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width;
  int64_t stride_height, stride_width;
  int64_t padding_height, padding_width;
  int64_t dilation_height, dilation_width;
  int64_t groups;

  int64_t padded_width() const { return in_width + 2 * padding_width; }
  int64_t padded_height() const { return in_height + 2 * padding_height; }
  int64_t out_pixels() const { return out_height * out_width; }
  /// How many inputs an output is a sum of.
  int64_t patch_size() const { return in_channels / groups * kernel_height * kernel_width; }
  /// How many int32 the copy of one padded plane takes, and the sums of one output channel.
  int64_t plane_size() const { return padded_height() * padded_width(); }
  int64_t sums_size() const { return out_height * (padded_width() > out_width ? padded_width() : out_width); }
};

/// The grid of a result in the int8 convention, and the bounds that an activation sets.
struct CodeRange {
  int32_t zero_point, clamp_min, clamp_max;
};

/// The fixed-point form of the sum of two grids; see `fixed_point_add`.
struct FixedPointAdd {
  int32_t left_multiplier, right_multiplier;
  int32_t left_zero_point, right_zero_point;
  int32_t shift;
};

}  // namespace torchslim::deploy

// The integer reference, one image a call. Codes are int8; `scratch` is int32.
TORCHSLIM_DECLARE_KERNEL(
    // codes[i] = x[i] rounded to the grid; `fused`: rint(fma(x, 1 / scale, zero_point)), else rint(x · 1 / scale) + zero_point.
    void reference_quantize(const float* x, int8_t* codes, int64_t n, float scale, bool fused, deploy::CodeRange range);
    // values[i] = scale · (codes[i] - zero_point)
    void reference_dequantize(const int8_t* codes, float* values, int64_t n, float scale, int32_t zero_point);
    // weight: codes as int16, (out_channels, patch_size()). patches: out_pixels() · patch_size(). scratch: plane_size() +
    // sums_size(). A linear layer is a convolution of a 1x1 image.
    void reference_conv2d(const int8_t* x, int32_t x_zero_point, const int16_t* weight, const int32_t* bias,
                          const float* multiplier, deploy::CodeRange range, const deploy::WindowShape& shape,
                          int16_t* patches, int32_t* scratch, int8_t* y);
    // The same for a transposed convolution; weight with output channels first. scratch: out_pixels().
    void reference_conv_transpose2d(const int8_t* x, int32_t x_zero_point, const int16_t* weight, const int32_t* bias,
                                    const float* multiplier, deploy::CodeRange range, const deploy::WindowShape& shape,
                                    int32_t* scratch, int8_t* y);
    void reference_add(const int8_t* left, const int8_t* right, int8_t* y, int64_t n, deploy::FixedPointAdd form,
                       deploy::CodeRange range);
    void reference_clamp(const int8_t* x, int8_t* y, int64_t n, deploy::CodeRange range);
    void reference_max_pool2d(const int8_t* x, const deploy::WindowShape& shape, deploy::CodeRange range, int8_t* y);
    // Padding counts as the zero point. multiplier: 1 / (kernel_height · kernel_width) as the runtime rounds it.
    void reference_avg_pool2d(const int8_t* x, const deploy::WindowShape& shape, float multiplier,
                              deploy::CodeRange range, int8_t* y);)
