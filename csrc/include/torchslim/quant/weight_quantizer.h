// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/quant/fold.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace torchslim::quant {

/// Options for `WeightQuantizer`.
///
/// Example: WeightQuantizerOptions().quantizer("lsq").bits(4)
struct TORCHSLIM_API WeightQuantizerOptions {
  /// What the weight is rounded to:
  ///   "fake_quantize"  the grid [-L, L] with L = 2^(bits-1) - 1, its scale a pure function of the weight; 2 to 8 bits
  ///   "lsq"            the same grid, its scale trained (Esser et al. 2020, arXiv:1902.08153); 2 to 8 bits
  ///   "binary"         sign(w)·mean|w| (`binary_fake_quantize`); 1 bit
  ///   "ternary"        -s, 0, s (`ternary_fake_quantize`); 2 bits
  ///   "apot", "power_of_two"  levels (`apot_levels`, `power_of_two_levels`), the largest meets max|w|; 2 to 8 bits
  ///   "float8_e4m3", "float8_e5m2", "float16", "bfloat16"  a floating-point format, its largest number meets max|w|
  TORCH_ARG(std::string, quantizer) = "fake_quantize";
  /// Width of a code; empty: the quantiser's own (8; "binary" 1, "ternary" 2, "apot" and "power_of_two" 4, floats theirs).
  TORCH_ARG(std::optional<int64_t>, bits) = std::nullopt;
  /// Where "fake_quantize" takes its scale from, and "lsq" its first: "absmax" or "mse" (`WeightGridOptions`).
  TORCH_ARG(std::string, scale_search) = "absmax";

 public:
  /// Returns the names that `quantizer` may have.
  static std::vector<std::string> quantizers();
  /// Returns whether the quantiser has a grid of that many bits.
  bool takes(int64_t bits) const;
  /// Returns the width of a code.
  int64_t width() const;
  /// Returns the largest code of a grid of integers: 2^(bits-1) - 1, and 1 for "binary" and "ternary".
  int64_t largest_code() const;
  /// Whether the weight lies on an even grid of int8 codes; if not, a layer with it runs in float when it ships.
  bool has_codes() const;
  /// Whether it is the rule of `fake_quantize_weight` with 8 bits, for which layers need no quantiser of their own.
  bool is_default() const;
  /// Throws c10::ValueError, with `who` in front, unless the options make sense.
  void check(const std::string& who) const;
};

/// A weight as floats on its grid.
struct TORCHSLIM_API RoundedWeight {
  at::Tensor weight;  // shape of the float weight
  at::Tensor scale;   // float32 (O), > 0, without gradient; undefined where there are no codes
};

/// What rounds the weight of a convolution or linear layer, in place of the int8 rule: child `weight_fake_quantize`.
/// Every quantiser has one grid per output channel and zero point 0, so that it commutes with the batch norm behind.
/// State: "lsq" has the parameter `scale` (O), of which `positive_scale` is used; a frozen grid has the buffer `scale` (O);
/// others have none.
class TORCHSLIM_API WeightQuantizerImpl : public torch::nn::Module {
 public:
  /// `weight` (O, ...) float32: "lsq" begins with its scale. Throws c10::ValueError for options that make no sense.
  WeightQuantizerImpl(const WeightQuantizerOptions& options, const at::Tensor& weight);

  void pretty_print(std::ostream& stream) const override;

  /// Returns the rounded weight, with its straight-through gradient, and its scale.
  RoundedWeight forward(const at::Tensor& weight);

  /// Returns the integers of the weight: `codes * scale` is what `forward` returns. Throws c10::ValueError on NaN or infinity,
  /// and where there are no codes.
  QuantizedWeight quantize(const at::Tensor& weight);

  /// Returns the rounded weight in operations that `graph::capture` knows: with codes one fake_quantize with constant grid, else
  /// a constant.
  at::Tensor traced(const at::Tensor& weight);

  /// Keeps the grid at `scale` (float32 (O), > 0) from now on: for weights that were rounded to it by other means, such as
  /// `gptq`. Throws c10::ValueError where there are no codes, and for another shape or numbers.
  void freeze(const at::Tensor& scale);
  bool is_frozen() const { return frozen_; }

  WeightQuantizerOptions options;
  at::Tensor scale;  // undefined unless learned or frozen

 private:
  at::Tensor on_levels(const at::Tensor& weight) const;

  bool frozen_ = false;
};

/// Holder of `WeightQuantizerImpl`; see there.
TORCH_MODULE(WeightQuantizer);

}  // namespace torchslim::quant
