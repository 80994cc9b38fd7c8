// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

namespace torchslim::quant {

/// Options for `LevelFakeQuantize`.
///
/// Example: LevelFakeQuantize quantiser(LevelFakeQuantizeOptions(apot_levels(4)).axis(0));
struct TORCHSLIM_API LevelFakeQuantizeOptions {
  explicit LevelFakeQuantizeOptions(at::Tensor levels) : levels_(std::move(levels)) {}
  /// The table, (n), strictly ascending and finite.
  TORCH_ARG(at::Tensor, levels);
  /// The channel dimension, to have one scale for each channel; empty: one scale. Default: empty.
  TORCH_ARG(std::optional<int64_t>, axis) = std::nullopt;
  /// "clipped" or "passthrough": see `level_fake_quantize`. Default: "clipped".
  TORCH_ARG(std::string, gradient) = "clipped";
};

/// Rounds what passes through to a table of levels: y = level_fake_quantize(x, levels, scale, axis, gradient).
/// Buffers, float32: levels (n); scale of shape () and 1, or with an axis empty, until `fit_scale` or a load sets it.
class TORCHSLIM_API LevelFakeQuantizeImpl : public torch::nn::Cloneable<LevelFakeQuantizeImpl> {
 public:
  explicit LevelFakeQuantizeImpl(const LevelFakeQuantizeOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// Returns the rounded `x`, any shape, float32, float64, bfloat16 or float16.
  at::Tensor forward(const at::Tensor& x);

  /// Sets the scale so that the largest |level| meets the largest |x| (of each channel): `absmax_scale`.
  void fit_scale(const at::Tensor& x);

  LevelFakeQuantizeOptions options;
  at::Tensor levels, scale;
};

/// Holder of `LevelFakeQuantizeImpl`; see there.
TORCH_MODULE(LevelFakeQuantize);

}  // namespace torchslim::quant
