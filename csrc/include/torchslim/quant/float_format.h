// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstdint>
#include <string>

namespace torchslim::quant {

/// A floating-point format: sign, `exponent_bits`, `mantissa_bits`. Exponent code c > 0 stands for (1 + k/2^m)·2^(c − bias),
/// code 0 for the subnormals (k/2^m)·2^(1 − bias).
///
/// Example: float_fake_quantize(x, FloatFormat::e4m3fn(), at::scalar_tensor(0.5));
struct TORCHSLIM_API FloatFormat {
  /// 0 to 8. 0: evenly spaced numbers, subnormals only.
  int64_t exponent_bits;
  /// 0 to 22; at least 1 without exponent bits, and with `specials` "ieee".
  int64_t mantissa_bits;
  /// -64 to 127; the largest number must be a finite float32.
  int64_t bias;
  /// Which codes are no numbers: "ieee", those of the largest exponent, infinities and NaN; "nan", the one of all ones, NaN;
  /// or "none".
  std::string specials;
  /// Whether what is too large becomes the largest number; if not, infinity ("ieee") or NaN ("nan"). "none" saturates.
  bool saturate = true;

  /// IEEE half: e5m10, largest 65504.
  static FloatFormat fp16(bool saturate = true);
  /// bfloat16: e8m7, largest 3.39e38.
  static FloatFormat bf16(bool saturate = true);
  /// OCP FP8 E4M3: no infinities, largest 448. Micikevicius et al. 2022, arXiv:2209.05433.
  static FloatFormat e4m3fn(bool saturate = true);
  /// OCP FP8 E5M2, as IEEE: largest 57344.
  static FloatFormat e5m2(bool saturate = true);
  /// Any other, every code a number, with the bias 2^(exponent_bits − 1) − 1 (0 for 1 or no exponent bits). The elements of
  /// OCP MX: minifloat(3, 2), (2, 3), (2, 1), largest 28, 7.5, 6, and minifloat(0, 7), int8 in steps of 1/64.
  static FloatFormat minifloat(int64_t exponent_bits, int64_t mantissa_bits);

  /// Returns the largest number of the format. Throws c10::ValueError if the format is none of the above.
  double max() const;
  /// Returns the smallest number > 0 of the format.
  double smallest() const;
};

}  // namespace torchslim::quant
