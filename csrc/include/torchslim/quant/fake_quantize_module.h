// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/quant/observers.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>

namespace torchslim::quant {

/// Options for `FakeQuantize`.
///
/// Example: FakeQuantize quantiser(FakeQuantizeOptions().activation("relu"));
struct TORCHSLIM_API FakeQuantizeOptions {
  /// How the range follows what is seen: "moving_average", "min_max", or by a histogram (`observers.h`) "histogram",
  /// "percentile", "mse" or "entropy". Default: "moving_average".
  TORCH_ARG(std::string, observer) = "moving_average";
  /// Width of the integers, 1 to 16. The grid is [-2^(bits-1), 2^(bits-1) - 1], without its lowest code if symmetric,
  /// which takes 2 bits or more.
  TORCH_ARG(int64_t, bits) = 8;
  /// Whether the zero point is 0, as for weights. Default: false.
  TORCH_ARG(bool, symmetric) = false;
  /// The channel dimension, to have one grid for each channel; empty: one grid. Default: empty.
  TORCH_ARG(std::optional<int64_t>, axis) = std::nullopt;
  /// Elements along `axis` that share a grid; must divide it. Empty: all of a channel share one. Default: empty.
  TORCH_ARG(std::optional<int64_t>, group_size) = std::nullopt;
  /// The activation that is applied first, at no cost: "none", "relu" or "relu6". Needs an empty `axis`. Default: "none".
  TORCH_ARG(std::string, activation) = "none";
  /// How far the moving average goes towards a new range, in (0, 1]. Default: 0.1, as fast as a batch norm's statistics
  /// (torch.ao: 0.01, which clips activations that grow in the first hundred steps).
  TORCH_ARG(double, averaging_constant) = 0.1;
  /// The observers with a histogram: its bins, 2 to 2^20. Default: 2048.
  TORCH_ARG(int64_t, bins) = 2048;
  /// The percentile observer: the share of the values below the upper limit, and above the lower one; in (50, 100].
  TORCH_ARG(double, percentile) = 99.99;
  /// NaN and infinities in what is observed: "refuse" throws and leaves the state as it is; "skip" leaves them out, with a
  /// child `observer` in every case. Default: "refuse".
  TORCH_ARG(std::string, non_finite) = "refuse";
};

/// Fake-quantises what passes through: y = fake_quantize(activation(x)). In training mode it observes the range first and
/// moves its grid (`observe_fake_quantize`); eval() freezes the grid. Under a JIT trace it is the plain activation and one
/// torchslim::fake_quantize node.
/// Buffers (names of torch.ao): min_val, max_val, scale, zero_point of shape () or, with an axis, (channels) from the first
/// forward on, or with groups the shape of x with its groups in place of `axis`; observer_enabled and fake_quant_enabled,
/// uint8 of shape (1). An observer with a histogram, or of groups, or one that skips NaN, is the child `observer`, which reads x
/// once more; one with a histogram searches the range anew in each training forward.
class TORCHSLIM_API FakeQuantizeImpl : public torch::nn::Cloneable<FakeQuantizeImpl> {
 public:
  explicit FakeQuantizeImpl(const FakeQuantizeOptions& options = {});

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// Returns the fake-quantised activation of `x`, any shape, float32, float64, bfloat16 or float16.
  /// Throws c10::ValueError if it observes NaN or infinity and does not skip them; the state is then unchanged.
  at::Tensor forward(const at::Tensor& x);

  /// Whether training forwards move the range.
  void enable_observer(bool enabled = true);
  void disable_observer() { enable_observer(false); }
  /// Whether forwards round; if not, the activation alone is applied (and observed, in training mode).
  void enable_fake_quant(bool enabled = true);
  void disable_fake_quant() { enable_fake_quant(false); }

  /// Returns the grid that follows from min_val and max_val. Throws c10::ValueError if nothing has been observed.
  GridTensors calculate_qparams() const;
  /// Sets the grid, and with a histogram the range, to what follows from what was seen; leaves them if nothing was. Training
  /// forwards do so themselves.
  void update_qparams();

  int64_t quant_min() const;
  int64_t quant_max() const;

  FakeQuantizeOptions options;
  at::Tensor min_val, max_val, scale, zero_point, observer_enabled, fake_quant_enabled;

 private:
  at::Tensor activated(const at::Tensor& x) const;
  at::Tensor quantized(const at::Tensor& x) const;
  at::Tensor observed(const at::Tensor& x);
  at::Tensor observed_channels(const at::Tensor& x, bool rounds);

  friend class ActivationErrors;
  std::function<void(const at::Tensor&)> tap_;  // sees an activation that is not rounded
  Observer* observer_ = nullptr;                // the child `observer`, if there is one
};

/// Holder of `FakeQuantizeImpl`; see there.
TORCH_MODULE(FakeQuantize);

}  // namespace torchslim::quant
