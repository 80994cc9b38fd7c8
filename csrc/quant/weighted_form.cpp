// SPDX-License-Identifier: BSD-3-Clause
#include "quant/weighted_form.h"

#include <ATen/TensorOperators.h>
#include <ATen/TracerMode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/requantize.h>

namespace torchslim::quant::detail {
namespace {

constexpr int64_t kLargestWeightCode = 127;

/// A weight and a bias (which may be undefined) that a layer's product runs with.
struct WeightAndBias {
  at::Tensor weight;
  at::Tensor bias;
};

RoundedWeight rounded_weight(const WeightedTensors& layer) {
  if (layer.quantizer != nullptr) {
    return layer.quantizer->forward(layer.weight);
  }
  const auto [weight, scale] = fake_quantize_weight(layer.weight);
  return {weight, scale};
}

WeightAndBias trained(const WeightedTensors& layer, const at::Tensor& input_scale) {
  const RoundedWeight rounded = rounded_weight(layer);
  const bool rounds_bias = layer.bias.defined() && !layer.batch_norm && layer.has_codes();
  return {rounded.weight, rounds_bias ? round_bias(layer.bias, input_scale, rounded.scale) : layer.bias};
}

/// Weight and bias as `folded` has them, but for rounding the bias: so that eval() has gradients too.
WeightAndBias differentiable(const WeightedTensors& layer) {
  const at::Tensor weight = rounded_weight(layer).weight;
  if (!layer.batch_norm) {
    return {weight, layer.bias};
  }
  const BatchNormTensors& norm = *layer.batch_norm;
  at::Tensor factor = at::rsqrt(norm.var + norm.eps);
  factor = norm.gamma.defined() ? factor * norm.gamma : factor;
  at::Tensor bias = (layer.bias.defined() ? layer.bias - norm.mean : -norm.mean) * factor;
  bias = norm.beta.defined() ? bias + norm.beta : bias;
  std::vector<int64_t> per_channel(static_cast<size_t>(weight.dim()), 1);
  per_channel[0] = -1;
  return {weight * factor.view(per_channel), bias};
}

FoldedWeight fold_by_name(const WeightedTensors& layer, const at::Tensor& input_scale) {
  const at::AutoGradMode no_grad(false);
  try {
    if (layer.quantizer == nullptr) {
      return fold_layer(layer.weight, layer.bias, layer.batch_norm, input_scale);
    }
    const QuantizedWeight quantized = layer.quantizer->quantize(layer.weight);
    return fold_layer(quantized, layer.bias, layer.batch_norm, input_scale);
  } catch (const c10::ValueError& error) {
    TORCH_CHECK_VALUE(false, "layer `", layer.name, "`: ", error.what_without_backtrace());
  }
}

/// The integers that the layer ships with, as floats.
WeightAndBias folded(const WeightedTensors& layer, const at::Tensor& input_scale) {
  const FoldedWeight integers = fold_by_name(layer, input_scale);
  const at::Tensor weight = dequantize_weight(integers.codes, integers.scale);
  if (!at::GradMode::is_enabled() || !layer.weight.requires_grad()) {
    return {weight, integers.bias};
  }
  const WeightAndBias smooth = differentiable(layer);
  return {with_gradient(weight, smooth.weight), with_gradient(integers.bias, smooth.bias)};
}

void check_has_grid(const QuantTensor& x, const std::string& name) {
  TORCH_CHECK_VALUE(x.scale.defined(), "torchslim::quant: layer `", name,
                    "` is prepared, but its input has no grid; let images enter through quant::Input, and prepare "
                    "the whole network at once");
}

}  // namespace

bool is_tracing() { return at::tracer::impl::is_dispatch_enabled(); }

at::Tensor with_gradient(const at::Tensor& value, const at::Tensor& smooth) {
  return smooth.defined() ? value + (smooth - smooth.detach()) : value;
}

at::Tensor traced_weight(const WeightedTensors& layer) {
  const at::Tensor& weight = layer.weight;
  if (layer.quantizer != nullptr) {
    return layer.quantizer->traced(weight);
  }
  at::Tensor scale;
  at::Tensor zero_point;
  {
    const at::tracer::impl::NoTracerDispatchMode untraced;
    scale = std::get<1>(fake_quantize_weight(weight.detach()));
    zero_point = at::zeros_like(scale, at::kInt);
  }
  return fake_quantize(weight, scale, zero_point, -kLargestWeightCode, kLargestWeightCode, 0);
}

at::Tensor evaluated(const WeightedTensors& layer, const WeightedParts& parts, const QuantTensor& x) {
  const auto in_floats = [&] {
    const auto [weight, bias] = folded(layer, x.scale);
    return parts.product(x.value, weight, bias);
  };
  if (!x.rounded || !parts.fixed_scale.defined()) {
    return in_floats();
  }
  const bool wants_gradient = at::GradMode::is_enabled() && (x.value.requires_grad() || layer.weight.requires_grad());
  at::Tensor y;
  {
    const at::AutoGradMode no_grad(false);
    const FoldedWeight integers = fold_by_name(layer, x.scale);
    const at::Tensor step = integers.scale * x.scale;
    const at::Tensor sums = parts.product(steps_of(x.value, x.scale), integers.codes.to(at::kFloat),
                                          (integers.bias * step.reciprocal()).round());
    const int64_t axis = parts.channel_axis;
    y = requantize_sums(sums, step, parts.fixed_scale, axis < 0 ? axis + sums.dim() : axis);
  }
  return wants_gradient ? with_gradient(y, in_floats()) : y;
}

at::Tensor run_weighted(const WeightedTensors& layer, const WeightedParts& parts, const QuantTensor& x) {
  check_has_grid(x, layer.name);
  if (!parts.rounds) {
    return parts.normalize(parts.product(x.value, layer.weight, layer.bias));
  }
  if (is_tracing()) {
    return parts.normalize(parts.product(x.value, traced_weight(layer), layer.bias));
  }
  if (parts.training || !layer.has_codes()) {
    const auto [weight, bias] = trained(layer, x.scale);
    return parts.normalize(parts.product(x.value, weight, bias));
  }
  return evaluated(layer, parts, x);
}

}  // namespace torchslim::quant::detail
