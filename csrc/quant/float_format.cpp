// SPDX-License-Identifier: BSD-3-Clause
#include "quant/float_format.h"

#include <c10/util/Exception.h>
#include <torchslim/quant/float_format.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace torchslim::quant {
namespace {

constexpr int kFloatMantissa = 23;

double power_of_two(int64_t exponent) { return std::ldexp(1.0, static_cast<int>(exponent)); }

double largest_number(const FloatFormat& format) {
  const auto [exponent_bits, mantissa_bits, bias, specials, saturate] = format;
  if (exponent_bits == 0) {
    return (1 - power_of_two(-mantissa_bits)) * power_of_two(1 - bias);
  }
  const int64_t last_code = (int64_t{1} << exponent_bits) - 1;
  if (specials == "none") {
    return (2 - power_of_two(-mantissa_bits)) * power_of_two(last_code - bias);
  }
  if (specials == "nan" && mantissa_bits > 0) {
    return (2 - power_of_two(1 - mantissa_bits)) * power_of_two(last_code - bias);
  }
  return (2 - power_of_two(-mantissa_bits)) * power_of_two(last_code - 1 - bias);
}

// Whether half-way above a normal number goes up, to the even code.
bool has_odd_code(float number, int shift, int odd) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return ((bits >> shift ^ static_cast<uint32_t>(odd)) & 1) != 0;
}

}  // namespace

FloatFormat FloatFormat::fp16(bool saturate) { return {5, 10, 15, "ieee", saturate}; }
FloatFormat FloatFormat::bf16(bool saturate) { return {8, 7, 127, "ieee", saturate}; }
FloatFormat FloatFormat::e4m3fn(bool saturate) { return {4, 3, 7, "nan", saturate}; }
FloatFormat FloatFormat::e5m2(bool saturate) { return {5, 2, 15, "ieee", saturate}; }

FloatFormat FloatFormat::minifloat(int64_t exponent_bits, int64_t mantissa_bits) {
  const bool has_bias = exponent_bits >= 2 && exponent_bits <= 8;
  FloatFormat format{exponent_bits, mantissa_bits, has_bias ? (int64_t{1} << (exponent_bits - 1)) - 1 : 0, "none"};
  detail::check_format("torchslim::FloatFormat", format);
  return format;
}

double FloatFormat::max() const {
  detail::check_format("torchslim::FloatFormat", *this);
  return largest_number(*this);
}

double FloatFormat::smallest() const {
  detail::check_format("torchslim::FloatFormat", *this);
  return power_of_two(1 - bias - mantissa_bits);
}

namespace detail {

void check_format(const char* op, const FloatFormat& format) {
  const auto& specials = format.specials;
  TORCH_CHECK_VALUE(specials == "ieee" || specials == "nan" || specials == "none", op,
                    ": specials must be `ieee`, `nan` or `none`, got `", specials, "`");
  const int64_t least_exponent = specials == "ieee" ? 2 : specials == "nan" ? 1 : 0;
  TORCH_CHECK_VALUE(format.exponent_bits >= least_exponent && format.exponent_bits <= 8, op,
                    ": exponent_bits must be in [", least_exponent, ", 8] with specials `", specials, "`, got ",
                    format.exponent_bits);
  const bool needs_mantissa = specials == "ieee" || format.exponent_bits <= (specials == "nan" ? 1 : 0);
  const int64_t least_mantissa = needs_mantissa ? 1 : 0;
  TORCH_CHECK_VALUE(format.mantissa_bits >= least_mantissa && format.mantissa_bits <= kFloatMantissa - 1, op,
                    ": mantissa_bits must be in [", least_mantissa, ", ", kFloatMantissa - 1, "] with ",
                    format.exponent_bits, " exponent bits and specials `", specials, "`, got ", format.mantissa_bits);
  TORCH_CHECK_VALUE(format.bias >= -64 && format.bias <= 127, op, ": bias must be in [-64, 127], got ", format.bias);
  const double largest = largest_number(format);
  TORCH_CHECK_VALUE(largest <= std::numeric_limits<float>::max(), op,
                    ": the largest number of the format must be a finite float32, got ", largest, " from bias ",
                    format.bias, " and ", format.exponent_bits, " exponent bits");
  TORCH_CHECK_VALUE(largest > 0, op, ": the format has no number but 0");
  TORCH_CHECK_VALUE(format.saturate || specials != "none", op,
                    ": saturate must be true with specials `none`, which have no code for what is too large");
}

FloatGrid float_grid(const FloatFormat& format) {
  const int64_t mantissa = format.mantissa_bits;
  const int shift = kFloatMantissa - static_cast<int>(mantissa);
  const int odd = mantissa == 0 ? static_cast<int>((127 - format.bias) & 1) : 0;
  const double largest = largest_number(format);
  const double smallest_normal = power_of_two(1 - format.bias);
  const double step = largest < smallest_normal ? format.smallest() : power_of_two(std::ilogb(largest) - mantissa);
  const auto middle = static_cast<float>(largest + step / 2);
  // Without normal numbers the largest code is odd, and half-way goes up to an even one that is too large.
  const bool up = largest < smallest_normal || has_odd_code(static_cast<float>(largest), shift, odd);
  const float infinity = std::numeric_limits<float>::infinity();
  return {.shift = shift,
          .odd = odd,
          .smallest_normal = static_cast<float>(smallest_normal),
          .magic = static_cast<float>(power_of_two(kFloatMantissa + 1 - format.bias - mantissa)),
          .limit = up ? std::nextafter(middle, 0.0f) : middle,
          .overflow = format.saturate             ? static_cast<float>(largest)
                      : format.specials == "ieee" ? infinity
                                                  : std::numeric_limits<float>::quiet_NaN()};
}

}  // namespace detail
}  // namespace torchslim::quant
