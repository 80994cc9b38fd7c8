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
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/observe_fake_quantize.h>

#include <limits>

namespace torchslim::quant {
namespace {

constexpr const char* kModule = "torchslim::FakeQuantize";
constexpr float kInf = std::numeric_limits<float>::infinity();

void check_options(const FakeQuantizeOptions& options) {
  TORCH_CHECK_VALUE(options.observer() == "moving_average" || options.observer() == "min_max", kModule,
                    ": observer must be `moving_average` or `min_max`, got `", options.observer(), "`");
  TORCH_CHECK_VALUE(options.bits() >= 2 && options.bits() <= 16, kModule, ": bits must be in [2, 16], got ",
                    options.bits());
  const auto& activation = options.activation();
  TORCH_CHECK_VALUE(activation == "none" || activation == "relu" || activation == "relu6", kModule,
                    ": activation must be `none`, `relu` or `relu6`, got `", activation, "`");
  TORCH_CHECK_VALUE(activation == "none" || !options.axis(), kModule, ": activation `", activation,
                    "` needs one grid for the tensor, got axis ", options.axis().value_or(0),
                    "; apply the activation before the quantiser");
  TORCH_CHECK_VALUE(options.averaging_constant() > 0 && options.averaging_constant() <= 1, kModule,
                    ": averaging_constant must be in (0, 1], got ", options.averaging_constant());
}

std::optional<double> clamp_min_of(const FakeQuantizeOptions& options) {
  return options.activation() == "none" ? std::nullopt : std::optional<double>(0.0);
}

std::optional<double> clamp_max_of(const FakeQuantizeOptions& options) {
  return options.activation() == "relu6" ? std::optional<double>(6.0) : std::nullopt;
}

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
}

void FakeQuantizeImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::FakeQuantize(observer=" << options.observer() << ", bits=" << options.bits()
         << ", symmetric=" << (options.symmetric() ? "true" : "false") << ", activation=" << options.activation();
  if (options.axis()) {
    stream << ", axis=" << *options.axis();
  }
  stream << ")";
}

int64_t FakeQuantizeImpl::quant_max() const { return (int64_t{1} << (options.bits() - 1)) - 1; }

int64_t FakeQuantizeImpl::quant_min() const { return options.symmetric() ? -quant_max() : -quant_max() - 1; }

void FakeQuantizeImpl::enable_observer(bool enabled) { observer_enabled.fill_(enabled); }

void FakeQuantizeImpl::enable_fake_quant(bool enabled) { fake_quant_enabled.fill_(enabled); }

GridTensors FakeQuantizeImpl::calculate_qparams() const {
  return choose_qparams(min_val, max_val, quant_min(), quant_max(), options.symmetric());
}

at::Tensor FakeQuantizeImpl::activated(const at::Tensor& x) const {
  const auto& activation = options.activation();
  return activation == "relu" ? at::relu(x) : activation == "relu6" ? at::relu6(x) : x;
}

void FakeQuantizeImpl::observe_each_channel(const at::Tensor& x) {
  const int64_t axis = *options.axis() < 0 ? *options.axis() + x.dim() : *options.axis();
  if (min_val.numel() == 0 && axis >= 0 && axis < x.dim()) {
    at::NoGradGuard no_grad;
    min_val.resize_({x.size(axis)}).fill_(kInf);
    max_val.resize_({x.size(axis)}).fill_(-kInf);
    scale.resize_({x.size(axis)}).fill_(1);
    zero_point.resize_({x.size(axis)}).fill_(0);
  }
  observe_channels(x, min_val, max_val, scale, zero_point, *options.axis(), options.averaging_constant(), quant_min(),
                   quant_max(), options.symmetric(), options.observer() == "min_max");
}

at::Tensor FakeQuantizeImpl::observed(const at::Tensor& x) {
  return observe_fake_quantize(x, min_val, max_val, scale, zero_point, options.averaging_constant(), quant_min(),
                               quant_max(), options.symmetric(), clamp_min_of(options), clamp_max_of(options),
                               options.observer() == "min_max");
}

at::Tensor FakeQuantizeImpl::forward(const at::Tensor& x) {
  if (torch::jit::tracer::isTracing()) {
    const auto activation = activated(x);
    return is_set(fake_quant_enabled)
               ? fake_quantize(activation, scale, zero_point, quant_min(), quant_max(), options.axis())
               : activation;
  }
  const bool rounds = is_set(fake_quant_enabled);
  if (is_training() && is_set(observer_enabled)) {
    if (options.axis()) {
      observe_each_channel(x);
    } else if (rounds) {
      return observed(x);
    } else {
      at::NoGradGuard no_grad;
      observed(x);
    }
  }
  if (!rounds) {
    return activated(x);
  }
  return options.activation() == "none" ? fake_quantize(x, scale, zero_point, quant_min(), quant_max(), options.axis())
                                        : clamp_fake_quantize(x, scale, zero_point, quant_min(), quant_max(),
                                                              clamp_min_of(options), clamp_max_of(options));
}

}  // namespace torchslim::quant
