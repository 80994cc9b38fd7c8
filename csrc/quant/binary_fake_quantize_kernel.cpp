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

}  // namespace

template <typename T>
void magnitude_sum(const T* x, int64_t n, float above, double* sum, double* count) {
  double sums[kLanes] = {};
  double numbers[kLanes] = {};
  int64_t i = 0;
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
    for (int64_t j = 0; j < width; ++j) {
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
