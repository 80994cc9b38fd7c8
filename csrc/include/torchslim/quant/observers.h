// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/quant/histogram_range.h>
#include <torchslim/quant/qparams.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

namespace torchslim::quant {

/// Options for the observers.
///
/// Example: HistogramObserver observer(ObserverOptions().bits(4).axis(1));
struct TORCHSLIM_API ObserverOptions {
  /// Width of the integers, 1 to 16. The grid is [-2^(bits-1), 2^(bits-1) - 1], without its lowest code if symmetric.
  TORCH_ARG(int64_t, bits) = 8;
  /// Smallest and largest code, instead of `bits`; both or neither. Default: empty.
  TORCH_ARG(std::optional<int64_t>, quant_min) = std::nullopt;
  TORCH_ARG(std::optional<int64_t>, quant_max) = std::nullopt;
  /// Whether the zero point is in the middle of the grid, as for weights. Default: false.
  TORCH_ARG(bool, symmetric) = false;
  /// The channel dimension, to have one grid for each channel; empty: one grid. Default: empty.
  TORCH_ARG(std::optional<int64_t>, axis) = std::nullopt;
  /// Elements along `axis` that share a grid; must divide it. Empty: all of a channel share one. Default: empty.
  TORCH_ARG(std::optional<int64_t>, group_size) = std::nullopt;
  /// NaN and infinities in the data: "refuse" throws and leaves the state as it is, "skip" leaves them out.
  TORCH_ARG(std::string, non_finite) = "refuse";
  /// MovingAverageObserver: how far the range goes towards a new one, in (0, 1]. Default: 0.1 (torch.ao: 0.01).
  TORCH_ARG(double, averaging_constant) = 0.1;
  /// The observers with a histogram: its bins, 2 to 2^20. Default: 2048.
  TORCH_ARG(int64_t, bins) = 2048;
  /// PercentileObserver: the share of the values below the upper limit, and above the lower one; in (50, 100].
  TORCH_ARG(double, percentile) = 99.99;

 public:
  /// Returns the smallest and the largest code.
  int64_t smallest_code() const;
  int64_t largest_code() const;
  /// Throws c10::ValueError, with `module` in front, unless the options make sense.
  void check(const std::string& module) const;
};

/// What every observer does: it passes x through unchanged, remembers what it saw, and chooses a grid for it.
class TORCHSLIM_API Observer {
 public:
  virtual ~Observer() = default;

  /// Observes `x`, any shape, float32, float64, bfloat16 or float16, without a gradient, and returns it as it is.
  /// Throws c10::ValueError if it holds NaN or infinity and `non_finite` is "refuse"; the state is then unchanged.
  at::Tensor forward(const at::Tensor& x);

  /// Returns the grid that follows from what was seen: `choose_qparams`, or with an axis `channel_qparams`, of
  /// `calculate_range`. Throws c10::ValueError if nothing was seen.
  GridTensors calculate_qparams() const;

  /// Returns the range to quantise: what was seen, less what this observer cuts off.
  virtual RangeTensors calculate_range() const { return {min_val, max_val}; }

  /// Forgets what was seen.
  void reset_state();

  int64_t quant_min() const { return options.smallest_code(); }
  int64_t quant_max() const { return options.largest_code(); }

  ObserverOptions options;
  /// Smallest and largest value seen, or their moving average: float32, (inf, -inf) where nothing was seen. Shape () or,
  /// with an axis, from the first forward on, that which `observe_range` says.
  at::Tensor min_val, max_val;
  /// int64, the shape of min_val and `bins`; undefined in observers without a histogram.
  at::Tensor histogram;

 protected:
  /// `module` is the name that errors show; `state` what there is besides a range.
  enum class State { kRange, kHistogram };
  Observer(const char* module, const ObserverOptions& options, State state);

  void make_state();
  void describe(std::ostream& stream) const;

  /// Whether the range only widens.
  virtual bool keeps_extremes() const { return true; }

 private:
  void observe(const at::Tensor& x, const at::Tensor& counts, const at::Tensor& low, const at::Tensor& high) const;

  const char* module_;
  State state_;
};

/// What makes an observer a module.
template <typename Derived>
class ObserverModule : public torch::nn::Cloneable<Derived>, public Observer {
 public:
  void reset() override {
    this->make_state();
    min_val = this->register_buffer("min_val", min_val);
    max_val = this->register_buffer("max_val", max_val);
    if (histogram.defined()) {
      histogram = this->register_buffer("histogram", histogram);
    }
  }

  void pretty_print(std::ostream& stream) const override { this->describe(stream); }

 protected:
  ObserverModule(const char* module, const ObserverOptions& options, State state) : Observer(module, options, state) {
    reset();
  }
};

/// The range holds everything that was seen.
class TORCHSLIM_API MinMaxObserverImpl : public ObserverModule<MinMaxObserverImpl> {
 public:
  explicit MinMaxObserverImpl(const ObserverOptions& options = {});
};

/// The range goes a part of the way to that of each x: r + averaging_constant·(seen − r); the first range sets it.
class TORCHSLIM_API MovingAverageObserverImpl : public ObserverModule<MovingAverageObserverImpl> {
 public:
  explicit MovingAverageObserverImpl(const ObserverOptions& options = {});

 protected:
  bool keeps_extremes() const override { return false; }
};

/// A histogram of everything that was seen, and torch.ao's search for the least squared error (`l2_range`).
class TORCHSLIM_API HistogramObserverImpl : public ObserverModule<HistogramObserverImpl> {
 public:
  explicit HistogramObserverImpl(const ObserverOptions& options = {});
  RangeTensors calculate_range() const override;
};

/// A histogram of everything that was seen, without its outermost values (`percentile_range`).
class TORCHSLIM_API PercentileObserverImpl : public ObserverModule<PercentileObserverImpl> {
 public:
  explicit PercentileObserverImpl(const ObserverOptions& options = {});
  RangeTensors calculate_range() const override;
};

/// A histogram of everything that was seen, and the grid with the least squared error (`mse_range`).
class TORCHSLIM_API MseObserverImpl : public ObserverModule<MseObserverImpl> {
 public:
  explicit MseObserverImpl(const ObserverOptions& options = {});
  RangeTensors calculate_range() const override;
};

/// A histogram of everything that was seen, and the range that loses the least information (`entropy_range`).
class TORCHSLIM_API EntropyObserverImpl : public ObserverModule<EntropyObserverImpl> {
 public:
  explicit EntropyObserverImpl(const ObserverOptions& options = {});
  RangeTensors calculate_range() const override;
};

/// Holders; see the classes above.
TORCH_MODULE(MinMaxObserver);
TORCH_MODULE(MovingAverageObserver);
TORCH_MODULE(HistogramObserver);
TORCH_MODULE(PercentileObserver);
TORCH_MODULE(MseObserver);
TORCH_MODULE(EntropyObserver);

}  // namespace torchslim::quant
