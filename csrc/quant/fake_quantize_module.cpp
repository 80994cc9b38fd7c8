// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TracerMode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/relu6.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_group.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/observe_fake_quantize.h>

#include <limits>

namespace torchslim::quant {
namespace {

constexpr const char* kModule = "torchslim::FakeQuantize";
constexpr float kInf = std::numeric_limits<float>::infinity();

bool has_histogram(const std::string& observer) {
  return observer == "histogram" || observer == "percentile" || observer == "mse" || observer == "entropy";
}

ObserverOptions observer_options(const FakeQuantizeOptions& options) {
  return ObserverOptions()
      .bits(options.bits())
      .symmetric(options.symmetric())
      .axis(options.axis())
      .group_size(options.group_size())
      .averaging_constant(options.averaging_constant())
      .bins(options.bins())
      .percentile(options.percentile())
      .non_finite(options.non_finite());
}

void check_options(const FakeQuantizeOptions& options) {
  const auto& observer = options.observer();
  TORCH_CHECK_VALUE(observer == "moving_average" || observer == "min_max" || has_histogram(observer), kModule,
                    ": observer must be one of moving_average, min_max, histogram, percentile, mse, entropy, got `",
                    observer, "`");
  TORCH_CHECK_VALUE(options.averaging_constant() > 0 && options.averaging_constant() <= 1, kModule,
                    ": averaging_constant must be in (0, 1], got ", options.averaging_constant());
  observer_options(options).check(kModule);
  const auto& activation = options.activation();
  TORCH_CHECK_VALUE(activation == "none" || activation == "relu" || activation == "relu6", kModule,
                    ": activation must be `none`, `relu` or `relu6`, got `", activation, "`");
  TORCH_CHECK_VALUE(activation == "none" || !options.axis(), kModule, ": activation `", activation,
                    "` needs one grid for the tensor, got axis ", options.axis().value_or(0),
                    "; apply the activation before the quantiser");
}

std::optional<double> clamp_min_of(const FakeQuantizeOptions& options) {
  return options.activation() == "none" ? std::nullopt : std::optional<double>(0.0);
}

std::optional<double> clamp_max_of(const FakeQuantizeOptions& options) {
  return options.activation() == "relu6" ? std::optional<double>(6.0) : std::nullopt;
}

/// Gives a buffer other values, and their shape.
void give_values(const at::Tensor& values, const at::Tensor& buffer) { buffer.resize_(values.sizes()).copy_(values); }

bool is_set(const at::Tensor& flag) {
  at::tracer::impl::NoTracerDispatchMode not_recorded;
  return flag.item<uint8_t>() != 0;
}

}  // namespace

FakeQuantizeImpl::FakeQuantizeImpl(const FakeQuantizeOptions& options) : options(options) {
  check_options(options);
  reset();
}

void FakeQuantizeImpl::reset() {
  const std::vector<int64_t> shape(options.axis() ? 1 : 0, 0);
  min_val = register_buffer("min_val", at::full(shape, kInf));
  max_val = register_buffer("max_val", at::full(shape, -kInf));
  scale = register_buffer("scale", at::ones(shape));
  zero_point = register_buffer("zero_point", at::zeros(shape, at::kInt));
  observer_enabled = register_buffer("observer_enabled", at::ones({1}, at::kByte));
  fake_quant_enabled = register_buffer("fake_quant_enabled", at::ones({1}, at::kByte));
  const auto adopt = [this](auto observer) { observer_ = register_module("observer", observer).get(); };
  const auto& name = options.observer();
  if (name == "histogram") {
    adopt(HistogramObserver(observer_options(options)));
  } else if (name == "percentile") {
    adopt(PercentileObserver(observer_options(options)));
  } else if (name == "mse") {
    adopt(MseObserver(observer_options(options)));
  } else if (name == "entropy") {
    adopt(EntropyObserver(observer_options(options)));
  } else if (options.group_size() || options.non_finite() == "skip") {
    name == "min_max" ? adopt(MinMaxObserver(observer_options(options)))
                      : adopt(MovingAverageObserver(observer_options(options)));
  }
}

void FakeQuantizeImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::FakeQuantize(observer=" << options.observer() << ", bits=" << options.bits()
         << ", symmetric=" << (options.symmetric() ? "true" : "false") << ", activation=" << options.activation();
  if (options.axis()) {
    stream << ", axis=" << *options.axis();
  }
  if (options.group_size()) {
    stream << ", group_size=" << *options.group_size();
  }
  if (options.non_finite() != "refuse") {
    stream << ", non_finite=" << options.non_finite();
  }
  stream << ")";
}

int64_t FakeQuantizeImpl::quant_max() const { return (int64_t{1} << (options.bits() - 1)) - 1; }

int64_t FakeQuantizeImpl::quant_min() const { return options.symmetric() ? -quant_max() : -quant_max() - 1; }

void FakeQuantizeImpl::enable_observer(bool enabled) { observer_enabled.fill_(enabled); }

void FakeQuantizeImpl::enable_fake_quant(bool enabled) { fake_quant_enabled.fill_(enabled); }

GridTensors FakeQuantizeImpl::calculate_qparams() const {
  return options.axis() ? channel_qparams(min_val, max_val, quant_min(), quant_max(), options.symmetric())
                        : choose_qparams(min_val, max_val, quant_min(), quant_max(), options.symmetric());
}

void FakeQuantizeImpl::update_qparams() {
  at::NoGradGuard no_grad;
  if (observer_ != nullptr) {
    const auto range = observer_->calculate_range();
    give_values(range.min_val, min_val);
    give_values(range.max_val, max_val);
  }
  const auto shape = min_val.sizes();
  if (scale.sizes() != shape) {
    scale.resize_(shape).fill_(1);
    zero_point.resize_(shape).fill_(0);
  }
  quant::update_qparams(min_val, max_val, scale, zero_point, quant_min(), quant_max(), options.symmetric(),
                        options.axis().has_value());
}

at::Tensor FakeQuantizeImpl::activated(const at::Tensor& x) const {
  const auto& activation = options.activation();
  return activation == "relu" ? at::relu(x) : activation == "relu6" ? at::relu6(x) : x;
}

at::Tensor FakeQuantizeImpl::quantized(const at::Tensor& x) const {
  if (options.group_size()) {
    return fake_quantize_group(x, scale, zero_point, quant_min(), quant_max(), *options.group_size(), *options.axis());
  }
  return fake_quantize(x, scale, zero_point, quant_min(), quant_max(), options.axis());
}

at::Tensor FakeQuantizeImpl::observed_channels(const at::Tensor& x, bool rounds) {
  const auto observe = [&](const at::Tensor& low, const at::Tensor& high, const at::Tensor& grid_scale,
                           const at::Tensor& grid_zero_point) {
    const bool keep_extremes = options.observer() == "min_max";
    if (rounds) {
      return observe_fake_quantize(x, low, high, grid_scale, grid_zero_point, *options.axis(),
                                   options.averaging_constant(), quant_min(), quant_max(), options.symmetric(),
                                   keep_extremes);
    }
    observe_channels(x, low, high, grid_scale, grid_zero_point, *options.axis(), options.averaging_constant(),
                     quant_min(), quant_max(), options.symmetric(), keep_extremes);
    return x;
  };
  const int64_t axis = *options.axis() < 0 ? *options.axis() + x.dim() : *options.axis();
  if (min_val.numel() > 0 || axis < 0 || axis >= x.dim()) {
    return observe(min_val, max_val, scale, zero_point);
  }
  // The first tensor says how many channels there are. The state becomes theirs only once x has been accepted.
  const auto low = at::full({x.size(axis)}, kInf, min_val.options());
  const auto high = at::full({x.size(axis)}, -kInf, max_val.options());
  const GridTensors grid{at::ones({x.size(axis)}, scale.options()), at::zeros({x.size(axis)}, zero_point.options())};
  const auto y = observe(low, high, grid.scale, grid.zero_point);
  at::NoGradGuard no_grad;
  give_values(low, min_val);
  give_values(high, max_val);
  give_values(grid.scale, scale);
  give_values(grid.zero_point, zero_point);
  return y;
}

at::Tensor FakeQuantizeImpl::observed(const at::Tensor& x) {
  return observe_fake_quantize(x, min_val, max_val, scale, zero_point, options.averaging_constant(), quant_min(),
                               quant_max(), options.symmetric(), clamp_min_of(options), clamp_max_of(options),
                               options.observer() == "min_max");
}

at::Tensor FakeQuantizeImpl::forward(const at::Tensor& x) {
  if (torch::jit::tracer::isTracing()) {
    const auto activation = activated(x);
    return is_set(fake_quant_enabled) ? quantized(activation) : activation;
  }
  const bool rounds = is_set(fake_quant_enabled);
  if (is_training() && is_set(observer_enabled)) {
    if (observer_ != nullptr) {
      observer_->forward(activated(x.detach()));
      update_qparams();
    } else if (options.axis()) {
      return observed_channels(x, rounds);
    } else if (rounds) {
      return observed(x);
    } else {
      at::NoGradGuard no_grad;
      observed(x);
    }
  }
  if (!rounds) {
    const auto activation = activated(x);
    if (tap_) {
      tap_(activation);
    }
    return activation;
  }
  return options.activation() == "none" ? quantized(x)
                                        : clamp_fake_quantize(x, scale, zero_point, quant_min(), quant_max(),
                                                              clamp_min_of(options), clamp_max_of(options));
}

}  // namespace torchslim::quant
