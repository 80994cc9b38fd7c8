// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/quant/float_format.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

namespace torchslim::quant {

/// Options for `FloatFakeQuantize`.
///
/// Example: FloatFakeQuantize quantiser(FloatFakeQuantizeOptions(FloatFormat::e4m3fn()).axis(0));
struct TORCHSLIM_API FloatFakeQuantizeOptions {
  explicit FloatFakeQuantizeOptions(FloatFormat format) : format_(std::move(format)) {}
  /// The format to round to.
  TORCH_ARG(FloatFormat, format);
  /// The channel dimension, to have one scale for each channel; empty: one scale. Default: empty.
  TORCH_ARG(std::optional<int64_t>, axis) = std::nullopt;
  /// "clipped" or "passthrough": see `float_fake_quantize`. Default: "clipped".
  TORCH_ARG(std::string, gradient) = "clipped";
};

/// Rounds what passes through to a floating-point format: y = float_fake_quantize(x, format, scale, axis, gradient).
/// Buffer, float32: scale of shape () and 1, or with an axis empty, until `fit_scale` or a load sets it.
class TORCHSLIM_API FloatFakeQuantizeImpl : public torch::nn::Cloneable<FloatFakeQuantizeImpl> {
 public:
  explicit FloatFakeQuantizeImpl(const FloatFakeQuantizeOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// Returns the rounded `x`, any shape, float32, float64, bfloat16 or float16.
  at::Tensor forward(const at::Tensor& x);

  /// Sets the scale so that the format's largest number meets the largest |x| (of each channel): `absmax_scale`.
  void fit_scale(const at::Tensor& x);

  FloatFakeQuantizeOptions options;
  at::Tensor scale;
};

/// Holder of `FloatFakeQuantizeImpl`; see there.
TORCH_MODULE(FloatFakeQuantize);

}  // namespace torchslim::quant
