// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torchslim/quant/observe_histogram.h>
#include <torchslim/quant/observe_range.h>
#include <torchslim/quant/observers.h>

#include <limits>

#include "quant/fake_quantize.h"
#include "quant/histogram.h"
#include "quant/observed_rows.h"

namespace torchslim::quant {
namespace {

constexpr double kUnseen = std::numeric_limits<double>::infinity();

std::vector<int64_t> with_bins(at::IntArrayRef shape, int64_t bins) {
  auto result = shape.vec();
  result.push_back(bins);
  return result;
}

}  // namespace

int64_t ObserverOptions::largest_code() const { return quant_max().value_or((int64_t{1} << (bits() - 1)) - 1); }

int64_t ObserverOptions::smallest_code() const {
  return quant_min().value_or(symmetric() ? -largest_code() : -largest_code() - 1);
}

void ObserverOptions::check(const std::string& module) const {
  TORCH_CHECK_VALUE(bits() >= 1 && bits() <= 16, module, ": bits must be in [1, 16], got ", bits());
  TORCH_CHECK_VALUE(quant_min().has_value() == quant_max().has_value(), module,
                    ": quant_min and quant_max go together, got only ", quant_min() ? "quant_min" : "quant_max");
  TORCH_CHECK_VALUE(quant_min() || !symmetric() || bits() >= 2, module,
                    ": a symmetric grid of 1 bit has one point; choose bits >= 2");
  TORCH_CHECK_VALUE(non_finite() == "refuse" || non_finite() == "skip", module,
                    ": non_finite must be `refuse` or `skip`, got `", non_finite(), "`");
  TORCH_CHECK_VALUE(axis() || !group_size(), module, ": group_size ", group_size().value_or(0),
                    " needs `axis`, the dimension that is divided into groups");
  TORCH_CHECK_VALUE(group_size().value_or(1) >= 1, module, ": group_size must be >= 1, got ", group_size().value_or(1));
  detail::check_averaging_constant(module.c_str(), averaging_constant(), /*keep_extremes=*/false);
  detail::check_bins(module.c_str(), bins());
  detail::check_percentile(module.c_str(), percentile());
  detail::check_grid(module.c_str(), smallest_code(), largest_code());
}

Observer::Observer(const char* module, const ObserverOptions& options, State state)
    : options(options), module_(module), state_(state) {
  options.check(module);
}

void Observer::make_state() {
  const std::vector<int64_t> shape(options.axis() ? 1 : 0, 0);
  min_val = at::full(shape, kUnseen);
  max_val = at::full(shape, -kUnseen);
  if (state_ == State::kHistogram) {
    histogram = at::zeros(with_bins(shape, options.bins()), at::kLong);
  }
}

void Observer::reset_state() {
  at::NoGradGuard no_grad;
  min_val.fill_(kUnseen);
  max_val.fill_(-kUnseen);
  if (options.axis()) {  // the next tensor may have other channels
    min_val.resize_({0});
    max_val.resize_({0});
  }
  if (histogram.defined()) {
    histogram.resize_(with_bins(min_val.sizes(), options.bins())).zero_();
  }
}

void Observer::describe(std::ostream& stream) const {
  stream << "torchslim::quant::" << std::string(module_).substr(std::string("torchslim::").size())
         << "(quant_min=" << quant_min() << ", quant_max=" << quant_max()
         << ", symmetric=" << (options.symmetric() ? "true" : "false");
  if (options.axis()) {
    stream << ", axis=" << *options.axis();
  }
  if (options.group_size()) {
    stream << ", group_size=" << *options.group_size();
  }
  stream << ", non_finite=" << options.non_finite() << ")";
}

void Observer::observe(const at::Tensor& x, const at::Tensor& counts, const at::Tensor& low,
                       const at::Tensor& high) const {
  const bool skip = options.non_finite() == "skip";
  if (counts.defined()) {
    observe_histogram(x, counts, low, high, options.axis(), options.group_size(), skip);
  } else {
    observe_range(x, low, high, options.axis(), options.group_size(), options.averaging_constant(), keeps_extremes(),
                  skip);
  }
}

at::Tensor Observer::forward(const at::Tensor& x) {
  at::NoGradGuard no_grad;
  if (!options.axis() || min_val.numel() > 0) {
    observe(x, histogram, min_val, max_val);
    return x;
  }
  // The first tensor says how many channels there are. The state becomes theirs only once x has been accepted.
  const auto sym_shape = detail::check_granularity(module_, x, {options.axis(), options.group_size()});
  const auto shape = C10_AS_INTARRAYREF_SLOW(c10::SymIntArrayRef(sym_shape));
  const auto low = at::full(shape, kUnseen, min_val.options());
  const auto high = at::full(shape, -kUnseen, min_val.options());
  const auto counts =
      histogram.defined() ? at::zeros(with_bins(shape, options.bins()), histogram.options()) : at::Tensor();
  observe(x, counts, low, high);
  min_val.resize_(shape).copy_(low);
  max_val.resize_(shape).copy_(high);
  if (histogram.defined()) {
    histogram.resize_(counts.sizes()).copy_(counts);
  }
  return x;
}

GridTensors Observer::calculate_qparams() const {
  TORCH_CHECK_VALUE(min_val.numel() > 0, module_, ": nothing has been observed yet; run some data through it first");
  const auto range = calculate_range();
  const auto choose =
      options.axis()
          ? channel_qparams
          : static_cast<GridTensors (*)(const at::Tensor&, const at::Tensor&, int64_t, int64_t, bool)>(choose_qparams);
  return choose(range.min_val, range.max_val, quant_min(), quant_max(), options.symmetric());
}

MinMaxObserverImpl::MinMaxObserverImpl(const ObserverOptions& options)
    : ObserverModule("torchslim::MinMaxObserver", options, State::kRange) {}

MovingAverageObserverImpl::MovingAverageObserverImpl(const ObserverOptions& options)
    : ObserverModule("torchslim::MovingAverageObserver", options, State::kRange) {}

HistogramObserverImpl::HistogramObserverImpl(const ObserverOptions& options)
    : ObserverModule("torchslim::HistogramObserver", options, State::kHistogram) {}

RangeTensors HistogramObserverImpl::calculate_range() const {
  return l2_range(histogram, min_val, max_val, quant_max() - quant_min() + 1);
}

PercentileObserverImpl::PercentileObserverImpl(const ObserverOptions& options)
    : ObserverModule("torchslim::PercentileObserver", options, State::kHistogram) {}

RangeTensors PercentileObserverImpl::calculate_range() const {
  return percentile_range(histogram, min_val, max_val, options.percentile());
}

MseObserverImpl::MseObserverImpl(const ObserverOptions& options)
    : ObserverModule("torchslim::MseObserver", options, State::kHistogram) {}

RangeTensors MseObserverImpl::calculate_range() const {
  return mse_range(histogram, min_val, max_val, quant_min(), quant_max(), options.symmetric());
}

EntropyObserverImpl::EntropyObserverImpl(const ObserverOptions& options)
    : ObserverModule("torchslim::EntropyObserver", options, State::kHistogram) {}

RangeTensors EntropyObserverImpl::calculate_range() const {
  return entropy_range(histogram, min_val, max_val, quant_min(), quant_max(), options.symmetric());
}

}  // namespace torchslim::quant
