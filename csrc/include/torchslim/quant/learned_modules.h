// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/quant/learned_fake_quantize.h>
#include <torchslim/quant/qparams.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <tuple>

namespace torchslim::quant {

/// Options for `LearnedFakeQuantize`.
///
/// Example: LearnedFakeQuantize quantiser(LearnedFakeQuantizeOptions().quant_min(-8).quant_max(7).axis(0));
struct TORCHSLIM_API LearnedFakeQuantizeOptions {
  /// The smallest integer of the grid. Default: -128.
  TORCH_ARG(int64_t, quant_min) = -128;
  /// The largest integer of the grid, > 0. Default: 127.
  TORCH_ARG(int64_t, quant_max) = 127;
  /// The channel dimension, to have one grid for each channel; empty: one grid. Default: empty.
  TORCH_ARG(std::optional<int64_t>, axis) = std::nullopt;
  /// Whether the zero point is 0 (LSQ) or learned (LSQ+). Default: true.
  TORCH_ARG(bool, symmetric) = true;
  /// How gradients of the grid are scaled: "none", "numel", "per_channel" or "features"; see `learned_fake_quantize`.
  /// Default: "numel", as the paper for weights; "features" does not depend on the batch and is its rule for activations.
  TORCH_ARG(std::string, grad_scale) = "numel";
};

/// Options for `Pact`, `TrainedThreshold` and `TrainableRange`.
struct TORCHSLIM_API LearnedRangeOptions {
  /// The smallest integer of the grid. Default: -128.
  TORCH_ARG(int64_t, quant_min) = -128;
  /// The largest integer of the grid. Default: 127.
  TORCH_ARG(int64_t, quant_max) = 127;
  /// The channel dimension, to have one grid for each channel; empty: one grid. Default: empty.
  TORCH_ARG(std::optional<int64_t>, axis) = std::nullopt;
};

using PactOptions = LearnedRangeOptions;
using TrainedThresholdOptions = LearnedRangeOptions;
using TrainableRangeOptions = LearnedRangeOptions;

namespace detail {

/// Whether the flag is set; not recorded by a trace.
TORCHSLIM_API bool learned_flag(const at::Tensor& flag);
/// Gives `state` (a parameter or buffer) new values, and the shape that they have; it stays the same tensor.
TORCHSLIM_API void set_state(const at::Tensor& state, const at::Tensor& values);
/// Throws unless quant_min < quant_max make a grid.
TORCHSLIM_API void check_learned_options(const char* module, int64_t quant_min, int64_t quant_max);

}  // namespace detail

/// What learned quantisers have in common. `Derived` has `options`; `first_values(x)`, which sets its parameters from a
/// batch; and `qparams()`, the grid as it follows from the parameters, differentiably.
/// The first forward in training mode begins with `initialize`; in eval mode it must have happened before.
/// Parameters and buffers have shape () or, with an axis, (channels), from `initialize` or loading on; `initialized` is
/// uint8 of shape (1).
template <typename Derived>
class LearnedQuantizer : public torch::nn::Cloneable<Derived> {
 public:
  /// Sets the parameters from a batch, and the flag. Throws c10::ValueError if `x` is empty, or holds NaN or infinity;
  /// nothing has changed then.
  void initialize(const at::Tensor& x) {
    const at::NoGradGuard no_grad;
    self().first_values(x);
    initialized.fill_(1);
  }

  /// Returns the grid that forwards use: scale float32, zero point int32. Throws c10::ValueError before `initialize`.
  GridTensors calculate_qparams() const {
    check_initialized();
    const auto [scale, zero_point] = self().qparams();
    const auto& options = self().options;
    return {scale.detach().to(at::kFloat), rounded_zero_point(zero_point, options.quant_min(), options.quant_max())};
  }

  at::Tensor initialized;

 protected:
  at::Tensor quantized(const at::Tensor& x, const std::string& grad_scale, const std::string& gradient) {
    if (this->is_training() && !detail::learned_flag(initialized)) {
      initialize(x);
    }
    check_initialized();
    const auto [scale, zero_point] = self().qparams();
    const auto& options = self().options;
    return learned_fake_quantize(x, scale, zero_point, options.quant_min(), options.quant_max(), options.axis(),
                                 grad_scale, gradient);
  }

  /// The values that a parameter has before the first batch.
  at::Tensor unset() const {
    return at::ones(self().options.axis() ? std::vector<int64_t>{0} : std::vector<int64_t>{});
  }

  void print_grid(std::ostream& stream, const char* name) const {
    const auto& options = self().options;
    stream << "torchslim::quant::" << name << "(quant_min=" << options.quant_min()
           << ", quant_max=" << options.quant_max();
    if (options.axis()) {
      stream << ", axis=" << *options.axis();
    }
  }

  void check_initialized() const {
    TORCH_CHECK_VALUE(detail::learned_flag(initialized), "torchslim::", this->name(),
                      ": the grid has no values yet; run a batch in training mode, or call initialize(batch)");
  }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
  const Derived& self() const { return static_cast<const Derived&>(*this); }
};

/// LSQ and LSQ+: fake-quantises on a grid whose scale, and with symmetric(false) zero point, are trained.
/// Parameter `scale`, of which positive_scale(scale) is used; `zero_point`: a float parameter (rounded half to even and
/// clamped to the grid in each forward) or, symmetric, an int32 buffer of 0.
/// Begins with initial_scale(x), or with the range of the first batch (initial_qparams).
class TORCHSLIM_API LearnedFakeQuantizeImpl : public LearnedQuantizer<LearnedFakeQuantizeImpl> {
 public:
  explicit LearnedFakeQuantizeImpl(const LearnedFakeQuantizeOptions& options = {});

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  /// Returns learned_fake_quantize(x), any shape, float32, float64, bfloat16 or float16.
  at::Tensor forward(const at::Tensor& x) { return quantized(x, options.grad_scale(), "rounded"); }
  std::tuple<at::Tensor, at::Tensor> qparams() const;
  void first_values(const at::Tensor& x);

  LearnedFakeQuantizeOptions options;
  at::Tensor scale, zero_point;
};

/// Holder of `LearnedFakeQuantizeImpl`; see there.
TORCH_MODULE(LearnedFakeQuantize);

/// PACT: clips to [0, alpha], ReLU included, and fake-quantises; alpha is trained by what it clips alone.
/// Parameter `alpha`, of which max(|alpha|, 2^-23) is used; begins with the largest value of the first batch.
class TORCHSLIM_API PactImpl : public LearnedQuantizer<PactImpl> {
 public:
  explicit PactImpl(const PactOptions& options = {});

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  /// Returns the rounded min(max(x, 0), alpha), any shape, float32, float64, bfloat16 or float16.
  at::Tensor forward(const at::Tensor& x) { return quantized(x, "none", "clip"); }
  std::tuple<at::Tensor, at::Tensor> qparams() const;
  void first_values(const at::Tensor& x);

  PactOptions options;
  at::Tensor alpha;
};

/// Holder of `PactImpl`; see there.
TORCH_MODULE(Pact);

/// TQT: a symmetric grid whose scale is a power of two, from a threshold that is trained in the log domain.
/// Parameter `log2_threshold`; begins with log2(max|x|) of the first batch.
class TORCHSLIM_API TrainedThresholdImpl : public LearnedQuantizer<TrainedThresholdImpl> {
 public:
  explicit TrainedThresholdImpl(const TrainedThresholdOptions& options = {});

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  /// Returns learned_fake_quantize(x), any shape, float32, float64, bfloat16 or float16.
  at::Tensor forward(const at::Tensor& x) { return quantized(x, "none", "rounded"); }
  std::tuple<at::Tensor, at::Tensor> qparams() const;
  void first_values(const at::Tensor& x);

  TrainedThresholdOptions options;
  at::Tensor log2_threshold;
};

/// Holder of `TrainedThresholdImpl`; see there.
TORCH_MODULE(TrainedThreshold);

/// A trainable range [input_low, input_low + input_range], as NNCF's asymmetric quantiser.
/// Parameters `input_low` and `input_range`, of which max(|input_range|, 2^-23) is used; begin with the range of the first
/// batch, widened to hold 0.
class TORCHSLIM_API TrainableRangeImpl : public LearnedQuantizer<TrainableRangeImpl> {
 public:
  explicit TrainableRangeImpl(const TrainableRangeOptions& options = {});

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  /// Returns learned_fake_quantize(x), any shape, float32, float64, bfloat16 or float16.
  at::Tensor forward(const at::Tensor& x) { return quantized(x, "none", "rounded"); }
  std::tuple<at::Tensor, at::Tensor> qparams() const;
  void first_values(const at::Tensor& x);

  TrainableRangeOptions options;
  at::Tensor input_low, input_range;
};

/// Holder of `TrainableRangeImpl`; see there.
TORCH_MODULE(TrainableRange);

/// Where LSQ begins: 2·mean|x| / √quant_max, or 1 where that is below 2^-23. One value, or one for each index of `axis`.
/// These functions throw c10::ValueError if x is empty, or holds NaN or infinity; they have no gradient.
TORCHSLIM_API at::Tensor initial_scale(const at::Tensor& x, int64_t quant_max,
                                       std::optional<int64_t> axis = std::nullopt);

/// Where LSQ+ begins: (scale, whole zero point) of x's range, widened to hold 0.
TORCHSLIM_API std::tuple<at::Tensor, at::Tensor> initial_qparams(const at::Tensor& x, int64_t quant_min,
                                                                 int64_t quant_max,
                                                                 std::optional<int64_t> axis = std::nullopt);

/// Where PACT begins: max x, or 1 where that is below 2^-23.
TORCHSLIM_API at::Tensor initial_alpha(const at::Tensor& x, std::optional<int64_t> axis = std::nullopt);

/// Where TQT begins: log2(max|x|), or 0 where x is 0.
TORCHSLIM_API at::Tensor initial_log2_threshold(const at::Tensor& x, std::optional<int64_t> axis = std::nullopt);

/// Where a trainable range begins: (low, range) of x, widened to hold 0; a range of 0 becomes 1.
TORCHSLIM_API std::tuple<at::Tensor, at::Tensor> initial_range(const at::Tensor& x,
                                                               std::optional<int64_t> axis = std::nullopt);

}  // namespace torchslim::quant
