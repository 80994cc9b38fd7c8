// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/reference_kernel.h"

#include <algorithm>
#include <cmath>

namespace torchslim::CPU_CAPABILITY {
namespace {

// QNNPACK's requantisation: the sum as a float, times the multiplier, half to even, then zero point and bounds.
int8_t requantize(int32_t sum, float multiplier, deploy::CodeRange range) {
  const auto rounded = static_cast<int32_t>(std::nearbyint(static_cast<float>(sum) * multiplier));
  return static_cast<int8_t>(std::clamp(rounded + range.zero_point, range.clamp_min, range.clamp_max));
}

// Copies a plane with its padding, shifted so that the zero point and the padding are 0.
void pad_plane(const int8_t* x, int32_t zero_point, const deploy::WindowShape& s, int32_t* padded) {
  std::fill_n(padded, s.plane_size(), 0);
  for (int64_t row = 0; row < s.in_height; ++row) {
    int32_t* to = padded + (row + s.padding_height) * s.padded_width() + s.padding_width;
    for (int64_t column = 0; column < s.in_width; ++column) {
      to[column] = x[row * s.in_width + column] - zero_point;
    }
  }
}

// sums[i] += weight · x[i · stride]
void accumulate_row(int32_t* sums, const int32_t* x, int32_t weight, int64_t n, int64_t stride) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) {
      sums[i] += weight * x[i];
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    sums[i] += weight * x[i * stride];
  }
}

// Adds one weight's share to the sums of one output channel. With stride 1 all rows are one run over the padded plane:
// `pitch` is then its width, and the sums between two rows are never read.
void accumulate(int32_t* sums, const int32_t* x, int32_t weight, int64_t pitch, const deploy::WindowShape& s) {
  if (s.stride_height == 1 && s.stride_width == 1) {
    accumulate_row(sums, x, weight, (s.out_height - 1) * pitch + s.out_width, 1);
    return;
  }
  for (int64_t row = 0; row < s.out_height; ++row) {
    accumulate_row(sums + row * pitch, x + row * s.stride_height * s.padded_width(), weight, s.out_width,
                   s.stride_width);
  }
}

}  // namespace

void reference_quantize(const float* x, int8_t* codes, int64_t n, float scale, bool fused, deploy::CodeRange range) {
  const float inverse = 1.0F / scale;
  const auto zero_point = static_cast<float>(range.zero_point + 128);  // as uint8, where the rule is defined
  for (int64_t i = 0; i < n; ++i) {
    const float rounded =
        fused ? std::nearbyint(std::fma(x[i], inverse, zero_point)) : std::nearbyint(x[i] * inverse) + zero_point;
    const float code =
        std::clamp(rounded - 128.0F, static_cast<float>(range.clamp_min), static_cast<float>(range.clamp_max));
    codes[i] = static_cast<int8_t>(code);
  }
}

void reference_dequantize(const int8_t* codes, float* values, int64_t n, float scale, int32_t zero_point) {
  for (int64_t i = 0; i < n; ++i) {
    values[i] = scale * static_cast<float>(codes[i] - zero_point);
  }
}

namespace {

// One input channel for each output channel: adds the plane, shifted, once for each weight.
void depthwise_channel(const int32_t* padded, const int16_t* weight, int32_t bias, float multiplier,
                       deploy::CodeRange range, const deploy::WindowShape& s, int32_t* sums, int8_t* y) {
  const bool one_run = s.stride_height == 1 && s.stride_width == 1;
  const int64_t pitch = one_run ? s.padded_width() : s.out_width;
  std::fill_n(sums, s.out_height * pitch, bias);
  for (int64_t ky = 0; ky < s.kernel_height; ++ky) {
    for (int64_t kx = 0; kx < s.kernel_width; ++kx) {
      const int64_t offset = ky * s.dilation_height * s.padded_width() + kx * s.dilation_width;
      accumulate(sums, padded + offset, weight[ky * s.kernel_width + kx], pitch, s);
    }
  }
  for (int64_t row = 0; row < s.out_height; ++row) {
    for (int64_t column = 0; column < s.out_width; ++column) {
      *y++ = requantize(sums[row * pitch + column], multiplier, range);
    }
  }
}

// Adds one channel of the group to the patches: its kernel's inputs for every output pixel, side by side.
void gather(const int32_t* padded, const deploy::WindowShape& s, int16_t* patches) {
  for (int64_t row = 0; row < s.out_height; ++row) {
    for (int64_t column = 0; column < s.out_width; ++column, patches += s.patch_size()) {
      const int32_t* from = padded + row * s.stride_height * s.padded_width() + column * s.stride_width;
      int16_t* to = patches;
      for (int64_t ky = 0; ky < s.kernel_height; ++ky) {
        for (int64_t kx = 0; kx < s.kernel_width; ++kx) {
          *to++ = static_cast<int16_t>(from[ky * s.dilation_height * s.padded_width() + kx * s.dilation_width]);
        }
      }
    }
  }
}

int32_t dot(const int16_t* left, const int16_t* right, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += static_cast<int32_t>(left[i]) * right[i];
  }
  return sum;
}

}  // namespace

void reference_conv2d(const int8_t* x, int32_t x_zero_point, const int16_t* weight, const int32_t* bias,
                      const float* multiplier, deploy::CodeRange range, const deploy::WindowShape& s, int16_t* patches,
                      int32_t* scratch, int8_t* y) {
  const int64_t group_inputs = s.in_channels / s.groups;
  const int64_t group_outputs = s.out_channels / s.groups;
  const int64_t in_pixels = s.in_height * s.in_width;
  for (int64_t group = 0; group < s.groups; ++group) {
    for (int64_t c = 0; c < group_inputs; ++c) {
      pad_plane(x + (group * group_inputs + c) * in_pixels, x_zero_point, s, scratch);
      if (group_inputs > 1) {
        gather(scratch, s, patches + c * s.kernel_height * s.kernel_width);
      }
    }
    for (int64_t o = group * group_outputs; o < (group + 1) * group_outputs; ++o) {
      const int16_t* w = weight + o * s.patch_size();
      if (group_inputs == 1) {
        depthwise_channel(scratch, w, bias[o], multiplier[o], range, s, scratch + s.plane_size(),
                          y + o * s.out_pixels());
        continue;
      }
      for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
        const int32_t sum = bias[o] + dot(patches + pixel * s.patch_size(), w, s.patch_size());
        y[o * s.out_pixels() + pixel] = requantize(sum, multiplier[o], range);
      }
    }
  }
}

namespace {

// Adds one weight's share of a plane to the sums of one output channel: each input spreads to where its window ends up.
void spread(const int8_t* x, int32_t x_zero_point, int32_t weight, int64_t ky, int64_t kx, const deploy::WindowShape& s,
            int32_t* sums) {
  for (int64_t row = 0; row < s.in_height; ++row) {
    const int64_t out_row = row * s.stride_height - s.padding_height + ky * s.dilation_height;
    if (out_row < 0 || out_row >= s.out_height) {
      continue;
    }
    for (int64_t column = 0; column < s.in_width; ++column) {
      const int64_t out_column = column * s.stride_width - s.padding_width + kx * s.dilation_width;
      if (out_column >= 0 && out_column < s.out_width) {
        sums[out_row * s.out_width + out_column] += weight * (x[row * s.in_width + column] - x_zero_point);
      }
    }
  }
}

}  // namespace

void reference_conv_transpose2d(const int8_t* x, int32_t x_zero_point, const int16_t* weight, const int32_t* bias,
                                const float* multiplier, deploy::CodeRange range, const deploy::WindowShape& s,
                                int32_t* scratch, int8_t* y) {
  const int64_t group_inputs = s.in_channels / s.groups;
  const int64_t group_outputs = s.out_channels / s.groups;
  for (int64_t o = 0; o < s.out_channels; ++o) {
    std::fill_n(scratch, s.out_pixels(), bias[o]);
    const int8_t* plane = x + o / group_outputs * group_inputs * s.in_height * s.in_width;
    for (int64_t c = 0; c < group_inputs; ++c, plane += s.in_height * s.in_width) {
      for (int64_t ky = 0; ky < s.kernel_height; ++ky) {
        for (int64_t kx = 0; kx < s.kernel_width; ++kx) {
          spread(plane, x_zero_point, *weight++, ky, kx, s, scratch);
        }
      }
    }
    for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
      *y++ = requantize(scratch[pixel], multiplier[o], range);
    }
  }
}

void reference_add(const int8_t* left, const int8_t* right, int8_t* y, int64_t n, deploy::FixedPointAdd form,
                   deploy::CodeRange range) {
  const auto mask = static_cast<int32_t>((uint32_t{1} << form.shift) - 1);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t sum = form.left_multiplier * (left[i] - form.left_zero_point) +
                        form.right_multiplier * (right[i] - form.right_zero_point);
    // Half away from zero: an arithmetic shift rounds down, the remainder says whether to go one up.
    const int32_t remainder = (sum & mask) - (sum < 0 ? 1 : 0);
    const int32_t rounded = (sum >> form.shift) + (remainder > (mask >> 1) ? 1 : 0);
    y[i] = static_cast<int8_t>(std::clamp(rounded + range.zero_point, range.clamp_min, range.clamp_max));
  }
}

void reference_clamp(const int8_t* x, int8_t* y, int64_t n, deploy::CodeRange range) {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = static_cast<int8_t>(std::clamp(static_cast<int32_t>(x[i]), range.clamp_min, range.clamp_max));
  }
}

namespace {

// Calls `visit(code)` for every position of the window of output (row, column) that lies inside the plane.
template <typename Visit>
void visit_window(const int8_t* plane, const deploy::WindowShape& s, int64_t row, int64_t column, Visit visit) {
  for (int64_t ky = 0; ky < s.kernel_height; ++ky) {
    const int64_t in_row = row * s.stride_height - s.padding_height + ky * s.dilation_height;
    for (int64_t kx = 0; kx < s.kernel_width; ++kx) {
      const int64_t in_column = column * s.stride_width - s.padding_width + kx * s.dilation_width;
      if (in_row >= 0 && in_row < s.in_height && in_column >= 0 && in_column < s.in_width) {
        visit(static_cast<int32_t>(plane[in_row * s.in_width + in_column]));
      }
    }
  }
}

}  // namespace

void reference_max_pool2d(const int8_t* x, const deploy::WindowShape& s, deploy::CodeRange range, int8_t* y) {
  for (int64_t c = 0; c < s.out_channels; ++c, x += s.in_height * s.in_width) {
    for (int64_t row = 0; row < s.out_height; ++row) {
      for (int64_t column = 0; column < s.out_width; ++column) {
        int32_t largest = range.clamp_min;
        visit_window(x, s, row, column, [&largest](int32_t code) { largest = std::max(largest, code); });
        *y++ = static_cast<int8_t>(largest);
      }
    }
  }
}

void reference_avg_pool2d(const int8_t* x, const deploy::WindowShape& s, float multiplier, deploy::CodeRange range,
                          int8_t* y) {
  for (int64_t c = 0; c < s.out_channels; ++c, x += s.in_height * s.in_width) {
    for (int64_t row = 0; row < s.out_height; ++row) {
      for (int64_t column = 0; column < s.out_width; ++column) {
        int32_t sum = 0;
        visit_window(x, s, row, column, [&](int32_t code) { sum += code - range.zero_point; });
        *y++ = requantize(sum, multiplier, range);
      }
    }
  }
}

}  // namespace torchslim::CPU_CAPABILITY
