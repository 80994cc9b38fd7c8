// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/quant/qparams.h>

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

namespace torchslim::quant {

/// Options for `LearnedActivation`.
///
/// Example: LearnedActivationOptions().quantizer("lsq").bits(4).activation("relu")
struct TORCHSLIM_API LearnedActivationOptions {
  /// "lsq": learned scale, zero point 0, behind a ReLU codes from 0; "lsq+": learned scale and zero point; "pact": learned
  /// clip, behind a ReLU only; "tqt": a learned power of two, as "lsq"; "range": a learned range. Default: "lsq".
  TORCH_ARG(std::string, quantizer) = "lsq";
  /// The grid has 2^bits codes; 1 to 8. Default: 8.
  TORCH_ARG(int64_t, bits) = 8;
  /// The activation that is applied first: "none", "relu" or "relu6". Default: "none".
  TORCH_ARG(std::string, activation) = "none";

 public:
  /// Returns the names that `quantizer` may have.
  static std::vector<std::string> quantizers();
};

/// Fake-quantises activation(x) on a grid that is trained, where a prepared layer would hold a `FakeQuantize`.
/// Child `learned` (`LearnedFakeQuantize`, `Pact`, `TrainedThreshold` or `TrainableRange`), whose parameters begin with the
/// first batch in training mode. While fake-quantise is disabled, each training batch sets them anew; with the observer
/// disabled, they get no gradient. The scale is at least 2^-12, its gradient passes. Under a trace it is the plain activation
/// and one torchslim::fake_quantize node.
/// Buffers: observer_enabled and fake_quant_enabled, uint8 of shape (1).
class TORCHSLIM_API LearnedActivationImpl : public torch::nn::Module {
 public:
  /// Throws c10::ValueError for another quantiser, activation or bits, and for "pact" without a ReLU.
  explicit LearnedActivationImpl(const LearnedActivationOptions& options);

  void pretty_print(std::ostream& stream) const override;

  /// Returns the fake-quantised activation of `x`, any shape, float32, float64, bfloat16 or float16. Throws c10::ValueError in
  /// eval mode before any batch.
  at::Tensor forward(const at::Tensor& x);

  /// Whether training forwards train the grid.
  void enable_observer(bool enabled = true);
  /// Whether forwards round; if not, the activation alone is applied.
  void enable_fake_quant(bool enabled = true);

  /// Whether the parameters have been set by a batch.
  bool has_grid() const;
  /// Returns the grid as it is now, without gradient: scale float32, zero point int32 in the int8 convention.
  GridTensors grid() const;
  /// Returns the smallest and largest code in the int8 convention.
  int64_t quant_min() const { return low_ - shift_; }
  int64_t quant_max() const { return high_ - shift_; }

  LearnedActivationOptions options;
  at::Tensor observer_enabled, fake_quant_enabled;

 private:
  template <typename Holder>
  void hold(Holder learned);
  at::Tensor activated(const at::Tensor& x) const;
  std::tuple<at::Tensor, at::Tensor> qparams() const;

  friend class ActivationErrors;
  std::function<void(const at::Tensor&)> tap_;  // sees an activation that is not rounded
  int64_t low_, high_, shift_;                  // the codes of `learned`, and how far they lie above int8's
  std::function<std::tuple<at::Tensor, at::Tensor>()> learned_qparams_;
  std::function<void(const at::Tensor&)> initialize_;
  at::Tensor initialized_;
  std::string grad_scale_ = "none";
};

/// Holder of `LearnedActivationImpl`; see there.
TORCH_MODULE(LearnedActivation);

}  // namespace torchslim::quant
