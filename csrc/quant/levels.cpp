// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/levels.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

using Numbers = std::vector<double>;

int64_t magnitude_bits(const char* op, int64_t bits, bool is_signed) {
  const int64_t sign = is_signed ? 1 : 0;
  TORCH_CHECK_VALUE(bits >= 1 + sign && bits <= 7 + sign, op, ": bits must be in [", 1 + sign, ", ", 7 + sign, "] ",
                    is_signed ? "with" : "without", " a sign, got ", bits);
  return bits - sign;
}

// All sums of one number from each of two sets.
Numbers sums(const Numbers& a, const Numbers& b) {
  Numbers all;
  for (const double one : a) {
    for (const double other : b) {
      all.push_back(one + other);
    }
  }
  return all;
}

// Mirrors magnitudes if asked to, sorts them and divides them by the largest.
at::Tensor as_levels(Numbers magnitudes, bool is_signed) {
  const double largest = *std::max_element(magnitudes.begin(), magnitudes.end());
  const size_t count = magnitudes.size();
  for (size_t i = 0; is_signed && i < count; ++i) {
    if (magnitudes[i] != 0) {
      magnitudes.push_back(-magnitudes[i]);
    }
  }
  std::sort(magnitudes.begin(), magnitudes.end());
  auto levels = at::empty({static_cast<int64_t>(magnitudes.size())}, at::kFloat);
  std::transform(magnitudes.begin(), magnitudes.end(), levels.mutable_data_ptr<float>(),
                 [largest](double magnitude) { return static_cast<float>(magnitude / largest); });
  return levels;
}

double nearest_power_of_two(double value) {
  int exponent;
  const double fraction = std::frexp(value, &exponent);  // in [1/2, 1)
  return std::ldexp(1.0, fraction < std::sqrt(0.5) ? exponent - 1 : exponent);
}

}  // namespace

at::Tensor apot_levels(int64_t bits, bool is_signed) {
  const int64_t m = magnitude_bits("torchslim::apot_levels", bits, is_signed);
  const int64_t terms = m / 2;
  const int64_t extra = m % 2;  // its one power comes before the last power of each set
  Numbers all{0.0};
  for (int64_t term = 0; term < terms; ++term) {
    const auto power = [](int64_t exponent) { return std::ldexp(1.0, static_cast<int>(-exponent)); };
    all = sums(all, {0.0, power(term + 1), power(term + 1 + terms), power(term + 1 + 2 * terms + extra)});
  }
  if (extra) {
    all = sums(all, {0.0, std::ldexp(1.0, static_cast<int>(-(2 * terms + 1)))});
  }
  return as_levels(all, is_signed);
}

at::Tensor power_of_two_levels(int64_t bits, bool is_signed) {
  const int64_t m = magnitude_bits("torchslim::power_of_two_levels", bits, is_signed);
  Numbers all{0.0};
  for (int i = 0; i <= (1 << m) - 2; ++i) {
    all.push_back(std::ldexp(1.0, -i));
  }
  return as_levels(all, is_signed);
}

at::Tensor power_of_two_scale(const at::Tensor& scale) {
  constexpr const char* kOp = "torchslim::power_of_two_scale";
  detail::check_input(kOp, scale);
  const auto numbers = scale.detach().to(at::kCPU, at::kDouble, /*non_blocking=*/false, /*copy=*/true).contiguous();
  double* number = numbers.mutable_data_ptr<double>();
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    detail::check_scale(kOp, number[i], " at index " + std::to_string(i));
    number[i] = nearest_power_of_two(number[i]);
  }
  return numbers.to(scale.options());
}

at::Tensor absmax_scale(const at::Tensor& x, double largest, std::optional<int64_t> axis) {
  constexpr const char* kOp = "torchslim::absmax_scale";
  detail::check_input(kOp, x);
  TORCH_CHECK_VALUE(x.numel() > 0, kOp, ": x must not be empty, got shape ", x.sizes());
  TORCH_CHECK_VALUE(std::isfinite(largest) && largest > 0, kOp, ": largest must be > 0 and finite, got ", largest);
  at::Tensor extreme;
  if (axis) {
    const int64_t dim = detail::check_axis(kOp, *axis, x.dim());
    extreme = x.detach().abs().movedim(dim, 0).reshape({x.size(dim), -1}).amax(1);
  } else {
    extreme = x.detach().abs().amax();
  }
  extreme = extreme.to(at::kFloat);
  TORCH_CHECK_VALUE(extreme.isfinite().all().item<bool>(), kOp, ": x must be finite, got NaN or infinity");
  const auto scale = extreme.div(largest);
  const float smallest = std::numeric_limits<float>::min();
  return at::where(scale.lt(smallest), at::full_like(scale, 1.0), scale);
}

}  // namespace torchslim::quant
