// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#ifdef CPU_CAPABILITY
#include <ATen/cpu/vec/vec.h>
#endif

// THE rounding rule, for scalars and (in kernels) for vectors. Everything here is always inlined, so that no copy that
// was compiled for one instruction set runs on a machine without it.
#define TORCHSLIM_INLINE [[gnu::always_inline]] inline

namespace torchslim::core {

/// Rounds to the nearest whole number, half to even; NaN and infinities stay.
/// Adding 2^(mantissa bits) leaves no fraction bit, so the addition itself rounds; larger numbers are whole already.
template <typename T>
TORCHSLIM_INLINE T round_half_even(T value) {
  constexpr T kWhole = T(int64_t{1} << (std::numeric_limits<T>::digits - 1));
  const T magnitude = std::fabs(value);
  return magnitude < kWhole ? std::copysign((magnitude + kWhole) - kWhole, value) : value;
}

template <typename T>
TORCHSLIM_INLINE T clamp(T value, T low, T high) {
  return value < low ? low : (value > high ? high : value);  // NaN stays
}

#ifdef CPU_CAPABILITY
template <typename T>
TORCHSLIM_INLINE at::vec::Vectorized<T> round_half_even(const at::vec::Vectorized<T>& value) {
#ifdef CPU_CAPABILITY_AVX2
  return value.round();
#else
  T lanes[at::vec::Vectorized<T>::size()];
  value.store(lanes);
  for (T& lane : lanes) {
    lane = round_half_even(lane);
  }
  return at::vec::Vectorized<T>::loadu(lanes);
#endif
}

template <typename T>
TORCHSLIM_INLINE at::vec::Vectorized<T> clamp(const at::vec::Vectorized<T>& value, const at::vec::Vectorized<T>& low,
                                              const at::vec::Vectorized<T>& high) {
  return at::vec::clamp(value, low, high);  // NaN stays
}
#endif

/// The grid {scale·(q − zero_point) : quant_min ≤ q ≤ quant_max}, counted in steps q − zero_point from zero.
/// `V` is float or double, or a vector of them; the numbers themselves are float32, as in ATen.
template <typename V>
struct StepGrid {
  V inverse_scale;  // 1 / scale
  V scale;
  V low;   // quant_min - zero_point
  V high;  // quant_max - zero_point
};

/// Returns x in steps of a grid, half to even, not yet clamped. ATen rounds x · (1/scale), adds the zero point and
/// clamps; clamping to the limits less the zero point is the same and saves two additions.
/// The + 0 turns -0 into the +0 that ATen's integers give.
template <typename V>
TORCHSLIM_INLINE V steps_from_zero(const V& x, const V& inverse_scale) {
  return round_half_even(x * inverse_scale) + V(0);
}

template <typename V>
TORCHSLIM_INLINE V steps_from_zero(const V& x, const StepGrid<V>& grid) {
  return steps_from_zero(x, grid.inverse_scale);
}

/// Returns the value of the grid point nearest to `steps`: saturates, and lets NaN through.
template <typename V>
TORCHSLIM_INLINE V value_at(const V& steps, const StepGrid<V>& grid) {
  return core::clamp(steps, grid.low, grid.high) * grid.scale;
}

}  // namespace torchslim::core
