// SPDX-License-Identifier: BSD-3-Clause
#include "quant/binary_fake_quantize_kernel.h"

#include <cmath>

#include "quant/scaled_runs.h"

namespace torchslim::CPU_CAPABILITY {
namespace {

constexpr int kLanes = 16;

// NaN counts: the mean must not hide it.
TORCHSLIM_INLINE bool counts(double magnitude, double above) { return !(magnitude <= above); }

template <typename T>
TORCHSLIM_INLINE double magnitude(T x) {
  return std::fabs(static_cast<double>(static_cast<Acc<T>>(x)));
}

// An element and the threshold of its channel.
template <typename V>
struct WithThreshold {
  V x, threshold;
};

struct Sign {
  template <typename A>
  TORCHSLIM_INLINE WithThreshold<A> prepared(A x, A threshold) const {
    return {x, threshold};
  }
  template <typename A>
  TORCHSLIM_INLINE A nearest(const WithThreshold<A>& v) const {
    const A sign = v.x < 0 ? A(-1) : A(1);
    const A value = std::fabs(v.x) > v.threshold ? sign : A(0);
    return v.x == v.x ? value : v.x;
  }
  template <typename A>
  TORCHSLIM_INLINE bool passes(const WithThreshold<A>& v, A) const {
    return std::fabs(v.x) <= 1;
  }

#ifdef CPU_CAPABILITY_AVX2
  using Lanes = at::vec::Vectorized<float>;

  TORCHSLIM_INLINE static __m256 magnitude_of(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

  TORCHSLIM_INLINE Lanes nearest(const WithThreshold<Lanes>& v) const {
    const __m256 x = v.x;
    const __m256 below_zero = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
    const __m256 sign = _mm256_blendv_ps(_mm256_set1_ps(1.0f), _mm256_set1_ps(-1.0f), below_zero);
    const __m256 value = _mm256_and_ps(sign, _mm256_cmp_ps(magnitude_of(x), v.threshold, _CMP_GT_OQ));
    return _mm256_blendv_ps(value, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  TORCHSLIM_INLINE Lanes passes(const WithThreshold<Lanes>& v, const Lanes&) const {
    return _mm256_cmp_ps(magnitude_of(v.x), _mm256_set1_ps(1.0f), _CMP_LE_OQ);
  }
#endif
};

// Adds whole groups of kLanes elements to their lanes, as many as it can without a branch for each, and returns how many
// elements those are.
#ifdef CPU_CAPABILITY_AVX2
template <typename T>
int64_t add_lanes(const T* x, int64_t n, float above, double* sums, double* numbers) {
  constexpr int kQuarters = kLanes / 4;
  if constexpr (kHasLanes<T>) {
    const __m256d limit = _mm256_set1_pd(above);
    __m256d sum[kQuarters] = {};
    __m256d number[kQuarters] = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (int quarter = 0; quarter < kQuarters; quarter += 2) {
        // Two bytes an element: one block holds both halves.
        const Block<T> block(x + i + (kVectors<T> == 1 ? 4 * quarter : 0));
        const __m256 size = Sign::magnitude_of(block.part[kVectors<T> == 1 ? 0 : quarter / 2]);
        const __m256d halves[] = {_mm256_cvtps_pd(_mm256_castps256_ps128(size)),
                                  _mm256_cvtps_pd(_mm256_extractf128_ps(size, 1))};
        for (int half = 0; half < 2; ++half) {
          const __m256d in = _mm256_cmp_pd(halves[half], limit, _CMP_NLE_UQ);
          sum[quarter + half] = _mm256_add_pd(sum[quarter + half], _mm256_and_pd(in, halves[half]));
          number[quarter + half] = _mm256_add_pd(number[quarter + half], _mm256_and_pd(in, _mm256_set1_pd(1.0)));
        }
      }
    }
    for (int quarter = 0; quarter < kQuarters; ++quarter) {
      _mm256_storeu_pd(sums + 4 * quarter, sum[quarter]);
      _mm256_storeu_pd(numbers + 4 * quarter, number[quarter]);
    }
    return i;
  }
  return 0;
}

// The same for a row of columns that have their own limits and sums.
template <typename T>
int64_t add_columns(const T* from, int64_t width, const float* above, double* sum, double* count) {
  int64_t j = 0;
  if constexpr (kHasLanes<T>) {
    for (; j + kBlock<T> <= width; j += kBlock<T>) {
      const Block<T> block(from + j);
      for (int quarter = 0; quarter < 2 * kVectors<T>; ++quarter) {
        const int64_t first = j + 4 * quarter;
        const __m256 part = Sign::magnitude_of(block.part[quarter / 2]);
        const __m128 half = quarter % 2 == 0 ? _mm256_castps256_ps128(part) : _mm256_extractf128_ps(part, 1);
        const __m256d size = _mm256_cvtps_pd(half);
        const __m256d in = _mm256_cmp_pd(size, _mm256_cvtps_pd(_mm_loadu_ps(above + first)), _CMP_NLE_UQ);
        _mm256_storeu_pd(sum + first, _mm256_add_pd(_mm256_loadu_pd(sum + first), _mm256_and_pd(in, size)));
        const __m256d one = _mm256_and_pd(in, _mm256_set1_pd(1.0));
        _mm256_storeu_pd(count + first, _mm256_add_pd(_mm256_loadu_pd(count + first), one));
      }
    }
  }
  return j;
}
#else
template <typename T>
int64_t add_lanes(const T*, int64_t, float, double*, double*) {
  return 0;
}
template <typename T>
int64_t add_columns(const T*, int64_t, const float*, double*, double*) {
  return 0;
}
#endif

}  // namespace

template <typename T>
void magnitude_sum(const T* x, int64_t n, float above, double* sum, double* count) {
  double sums[kLanes] = {};
  double numbers[kLanes] = {};
  int64_t i = add_lanes(x, n, above, sums, numbers);
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double size = magnitude(x[i + lane]);
      const bool in = counts(size, above);
      sums[lane] += in ? size : 0.0;
      numbers[lane] += in ? 1.0 : 0.0;
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    *sum += sums[lane];
    *count += numbers[lane];
  }
  for (; i < n; ++i) {
    const double size = magnitude(x[i]);
    const bool in = counts(size, above);
    *sum += in ? size : 0.0;
    *count += in ? 1.0 : 0.0;
  }
}

template <typename T>
void magnitude_sum_columns(const T* x, int64_t rows, int64_t stride, int64_t width, const float* above, double* sum,
                           double* count) {
  for (int64_t row = 0; row < rows; ++row) {
    const T* from = x + row * stride;
    for (int64_t j = add_columns(from, width, above, sum, count); j < width; ++j) {
      const double size = magnitude(from[j]);
      const bool in = counts(size, above[j]);
      sum[j] += in ? size : 0.0;
      count[j] += in ? 1.0 : 0.0;
    }
  }
}

template <typename T>
void sign_span(const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, const quant::Scales& thresholds,
               bool stream) {
  quantize_span(x, y, cut, begin, end, thresholds, Sign(), stream);
}

#define TORCHSLIM_INSTANTIATE(T)                                                                            \
  template void magnitude_sum(const T*, int64_t, float, double*, double*);                                  \
  template void magnitude_sum_columns(const T*, int64_t, int64_t, int64_t, const float*, double*, double*); \
  template void sign_span(const T*, T*, uint8_t*, int64_t, int64_t, const quant::Scales&, bool);
TORCHSLIM_INSTANTIATE(float)
TORCHSLIM_INSTANTIATE(double)
TORCHSLIM_INSTANTIATE(c10::BFloat16)
TORCHSLIM_INSTANTIATE(c10::Half)
#undef TORCHSLIM_INSTANTIATE

}  // namespace torchslim::CPU_CAPABILITY
