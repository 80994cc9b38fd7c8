// SPDX-License-Identifier: BSD-3-Clause
#include "quant/fake_quantize_weight_kernel.h"

#include <ATen/cpu/vec/vec.h>

#include <cmath>
#include <limits>

#include "core/rounding.h"

namespace torchslim::CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;

/// The larger of two, or NaN if one is.
float maximum(float a, float b) { return std::isnan(a) || a > b ? a : b; }

float max_abs(const float* x, int64_t size) {
  Vec largest(0.0f);
  int64_t i = 0;
  for (; i + Vec::size() <= size; i += Vec::size()) {
    largest = at::vec::maximum(largest, Vec::loadu(x + i).abs());
  }
  float lanes[Vec::size()];
  largest.store(lanes);
  float result = 0;
  for (const float lane : lanes) {
    result = maximum(lane, result);
  }
  for (; i < size; ++i) {
    result = maximum(std::fabs(x[i]), result);
  }
  return result;
}

/// As quantize_weight in fold.cpp: a scale without a finite inverse is as good as an all-zero
/// channel.
float scale_of(float largest, float largest_code) {
  const float scale = largest / largest_code;
  return scale < std::numeric_limits<float>::min() ? 1.0f : scale;
}

/// No clamp: |x| <= L·scale rounds to at most L.
void round_row(const float* x, float* y, int64_t size, float scale) {
  const float inverse = 1.0f / scale;
  int64_t i = 0;
  for (; i + Vec::size() <= size; i += Vec::size()) {
    (core::steps_from_zero(Vec::loadu(x + i), Vec(inverse)) * Vec(scale)).store(y + i);
  }
  for (; i < size; ++i) {
    y[i] = core::steps_from_zero(x[i], inverse) * scale;
  }
}

}  // namespace

void fake_quantize_weight_f32(const float* weight, float* result, float* scale, int64_t channels, int64_t size,
                              float largest_code) {
  for (int64_t c = 0; c < channels; ++c) {
    scale[c] = scale_of(max_abs(weight + c * size, size), largest_code);
    round_row(weight + c * size, result + c * size, size, scale[c]);
  }
}

}  // namespace torchslim::CPU_CAPABILITY
