// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torchslim/quant/fold.h>
#include <torchslim/quant/qparams.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/once_differentiable.h"
#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr double kWeightMax = 127;
constexpr const char* kRoundBias = "torchslim::round_bias";

/// `channels` (O) in the shape (O, 1, 1, ...) that broadcasts over `like`.
at::Tensor per_channel(const at::Tensor& channels, const at::Tensor& like) {
  std::vector<int64_t> shape(like.dim(), 1);
  shape[0] = channels.numel();
  return channels.view(shape);
}

void check_weight(const at::Tensor& weight, const char* who) {
  TORCH_CHECK_TYPE(weight.scalar_type() == at::kFloat, who, ": weight must be float32, got ", weight.scalar_type());
  TORCH_CHECK_VALUE(weight.dim() >= 2 && weight.numel() > 0, who,
                    ": weight must be (out_channels, ...) and not empty, got shape ", weight.sizes());
}

void check_channels(const at::Tensor& tensor, const at::Tensor& codes, const char* who, const char* name) {
  const int64_t channels = codes.size(0);
  TORCH_CHECK_VALUE(tensor.dim() == 1 && tensor.numel() == channels, who, ": ", name,
                    " must have one value for each of the ", channels, " output channels, got shape ", tensor.sizes());
  detail::check_device(who, name, tensor, codes.device());
}

void check_input_scale(const at::Tensor& input_scale, const at::Tensor& codes, const char* who) {
  TORCH_CHECK_VALUE(input_scale.numel() == 1, who, ": input_scale must be one number, got shape ", input_scale.sizes());
  detail::check_device(who, "input_scale", input_scale, codes.device());
  const double value = input_scale.item<double>();
  TORCH_CHECK_VALUE(std::isfinite(value) && value > 0, who, ": input_scale must be > 0 and finite, got ", value);
}

at::Tensor max_abs_per_channel(const at::Tensor& tensor) { return tensor.abs().flatten(1).amax(1); }

/// Below autograd: ATen ops, for every device.
at::Tensor round_bias_composite(const at::Tensor& bias, const at::Tensor& input_scale, const at::Tensor& weight_scale) {
  TORCH_CHECK_VALUE(input_scale.sym_numel() == 1, kRoundBias, ": input_scale must be one number, got shape ",
                    input_scale.sym_sizes());
  TORCH_CHECK_VALUE(bias.dim() == 1 && bias.sym_sizes() == weight_scale.sym_sizes(), kRoundBias,
                    ": bias must have the shape of weight_scale, ", weight_scale.sym_sizes(), ", got ",
                    bias.sym_sizes());
  detail::check_device(kRoundBias, "input_scale", input_scale, bias.device());
  detail::check_device(kRoundBias, "weight_scale", weight_scale, bias.device());
  const at::Tensor grid = input_scale.reshape({}) * weight_scale;
  return (bias * grid.reciprocal()).round_().mul_(grid);
}

/// Straight-through: the identity for the bias.
struct RoundBias : torch::autograd::Function<RoundBias> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& bias, const at::Tensor& input_scale,
                            const at::Tensor& weight_scale) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return round_bias(bias, input_scale, weight_scale);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list gradients) {
    return {core::once_differentiable(gradients[0], kRoundBias), {}, {}};
  }
};

at::Tensor round_bias_autograd(const at::Tensor& bias, const at::Tensor& input_scale, const at::Tensor& weight_scale) {
  return RoundBias::apply(bias, input_scale, weight_scale);
}

}  // namespace

QuantizedWeight quantize_weight(const at::Tensor& weight) {
  constexpr const char* kWho = "torchslim::quantize_weight";
  check_weight(weight, kWho);
  const at::Tensor w = weight.detach();
  const at::Tensor scale = weight_qparams(w).scale;
  at::Tensor codes = (w * per_channel(scale.reciprocal(), w)).round_().clamp_(-kWeightMax, kWeightMax);
  return {codes.to(at::kChar), scale};
}

FoldedWeight fold_batch_norm(const at::Tensor& codes, const at::Tensor& weight_scale,
                             const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& gamma,
                             const std::optional<at::Tensor>& beta, const at::Tensor& mean, const at::Tensor& var,
                             double eps) {
  constexpr const char* kWho = "torchslim::fold_batch_norm";
  TORCH_CHECK_TYPE(codes.scalar_type() == at::kChar, kWho, ": codes must be int8, got ", codes.scalar_type());
  check_channels(weight_scale, codes, kWho, "weight_scale");
  check_channels(mean, codes, kWho, "mean");
  check_channels(var, codes, kWho, "var");
  const auto float64 = [&](const std::optional<at::Tensor>& tensor, const char* name) {
    check_channels(*tensor, codes, kWho, name);
    return tensor->detach().to(at::kDouble);
  };
  at::Tensor factor = (var.detach().to(at::kDouble) + eps).rsqrt();
  if (gamma && gamma->defined()) {
    factor = factor * float64(gamma, "gamma");
  }
  at::Tensor shifted = -mean.detach().to(at::kDouble);
  if (bias && bias->defined()) {
    shifted = shifted + float64(bias, "bias");
  }
  at::Tensor folded_bias = shifted * factor;
  if (beta && beta->defined()) {
    folded_bias = folded_bias + float64(beta, "beta");
  }
  TORCH_CHECK_VALUE((factor.isfinite() & folded_bias.isfinite()).all().item<bool>(), kWho,
                    ": gamma / sqrt(var + eps) or the folded bias is NaN or infinity; the batch norm's "
                    "parameters or running statistics are broken");
  const at::Tensor scale = (factor.abs() * weight_scale.to(at::kDouble)).to(at::kFloat);
  TORCH_CHECK_VALUE(scale.isfinite().all().item<bool>(), kWho, ": the folded scale is beyond float32");
  const at::Tensor dead = scale < std::numeric_limits<float>::min();
  const at::Tensor sign = factor.sign().masked_fill(dead, 0.0).to(at::kChar);
  return {codes * per_channel(sign, codes), scale.masked_fill(dead, 1.0), folded_bias.to(at::kFloat)};
}

at::Tensor round_bias(const at::Tensor& bias, const at::Tensor& input_scale, const at::Tensor& weight_scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::round_bias", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
  return op.call(bias, input_scale, weight_scale);
}

FoldedWeight fit_bias(const FoldedWeight& folded, const at::Tensor& input_scale) {
  constexpr const char* kWho = "torchslim::fit_bias";
  constexpr double kLargestBias = 1 << 30;      // the accumulator's other half is for the products
  constexpr double kZeroChannelBias = 1 << 20;  // float32 holds it exactly, and its inverse too
  constexpr double kSmallestBias = 1.0 / 4096;  // no grid is finer than this, so neither must a bias be
  check_input_scale(input_scale, folded.codes, kWho);
  check_channels(folded.scale, folded.codes, kWho, "scale");
  check_channels(folded.bias, folded.codes, kWho, "bias");
  const at::Tensor bias_in_inputs =
      folded.bias.to(at::kDouble).abs().clamp_min(kSmallestBias) / input_scale.item<double>();
  const at::Tensor smallest = (bias_in_inputs / kLargestBias).to(at::kFloat);

  at::Tensor codes = folded.codes;
  at::Tensor scale = folded.scale;
  if ((scale < smallest).any().item<bool>()) {
    const at::Tensor fitted = scale.maximum(smallest);
    codes = (codes * per_channel(scale / fitted, codes)).round_().to(at::kChar);
    scale = fitted;
  }
  const at::Tensor zero = max_abs_per_channel(codes) == 0;
  scale = scale.where(zero.logical_not(), (bias_in_inputs / kZeroChannelBias).to(at::kFloat));
  return {codes, scale, round_bias(folded.bias, input_scale.to(at::kFloat), scale)};
}

FoldedWeight fold_layer(const at::Tensor& weight, const at::Tensor& bias,
                        const std::optional<BatchNormTensors>& batch_norm, const at::Tensor& input_scale) {
  return fold_layer(quantize_weight(weight), bias, batch_norm, input_scale);
}

FoldedWeight fold_layer(const QuantizedWeight& quantized, const at::Tensor& bias,
                        const std::optional<BatchNormTensors>& batch_norm, const at::Tensor& input_scale) {
  constexpr const char* kWho = "torchslim::fold_layer";
  TORCH_CHECK_TYPE(quantized.codes.scalar_type() == at::kChar, kWho, ": codes must be int8, got ",
                   quantized.codes.scalar_type());
  check_channels(quantized.scale, quantized.codes, kWho, "scale");
  if (batch_norm) {
    return fit_bias(fold_batch_norm(quantized.codes, quantized.scale, bias, batch_norm->gamma, batch_norm->beta,
                                    batch_norm->mean, batch_norm->var, batch_norm->eps),
                    input_scale);
  }
  const at::Tensor b = bias.defined() ? bias.detach() : at::zeros_like(quantized.scale);
  TORCH_CHECK_VALUE(b.isfinite().all().item<bool>(), kWho, ": the bias holds NaN or infinity");
  return fit_bias({quantized.codes, quantized.scale, b}, input_scale);
}

at::Tensor dequantize_weight(const at::Tensor& codes, const at::Tensor& scale) {
  check_channels(scale, codes, "torchslim::dequantize_weight", "scale");
  return codes.to(at::kFloat).mul_(per_channel(scale, codes));
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  m.def("round_bias(Tensor bias, Tensor input_scale, Tensor weight_scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { m.impl("round_bias", round_bias_composite); }

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("round_bias", round_bias_autograd); }

}  // namespace torchslim::quant
