// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/TracerMode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/flatten.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/relu6.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/requantize.h>
#include <torchslim/quant/round_average.h>

#include "quant/weighted_form.h"

namespace torchslim::quant {

using detail::is_tracing;
using detail::with_gradient;

namespace {

/// The value of a flag buffer, without a node in a trace.
bool is_on(const at::Tensor& flag) {
  const at::tracer::impl::NoTracerDispatchMode untraced;
  return flag.item<bool>();
}

const char* name_of(Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return "relu";
    case Activation::kRelu6:
      return "relu6";
    case Activation::kNone:
      break;
  }
  return "none";
}

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kRelu6:
      return at::relu6(x);
    case Activation::kNone:
      break;
  }
  return x;
}

/// A new tensor on the grid of `x`, or on none if `x` is on none.
QuantTensor on_grid_of(const QuantTensor& x, at::Tensor value) {
  QuantTensor y = x;
  y.value = std::move(value);
  return y;
}

}  // namespace

FakeQuantize QuantLayer::output_fake_quantize() const {
  TORCH_CHECK_VALUE(is_prepared(), "torchslim::quant: the layer has no quantiser before quant::prepare");
  TORCH_CHECK_VALUE(!output_fake_quantize_.is_empty(), "torchslim::quant: the quantiser of layer `", layer_name_,
                    "` is learned; ask for learned_activation()");
  return output_fake_quantize_;
}

void QuantLayer::replace_relu6() {
  TORCH_CHECK_VALUE(!is_prepared(), "torchslim::quant: layer `", layer_name_,
                    "` is prepared; replace its ReLU6 before quant::prepare");
  activation_ = activation_ == Activation::kRelu6 ? Activation::kRelu : activation_;
}

bool QuantLayer::rounds() const {
  return is_on(output_fake_quantize_.is_empty() ? learned_activation_->fake_quant_enabled
                                                : output_fake_quantize_->fake_quant_enabled);
}

at::Tensor QuantLayer::fixed_scale() const {
  if (is_tracing() || !rounds()) {
    return {};
  }
  if (output_fake_quantize_.is_empty()) {
    return learned_activation_->is_training() ? at::Tensor() : learned_activation_->grid().scale;
  }
  return output_fake_quantize_->is_training() ? at::Tensor() : output_fake_quantize_->scale;
}

QuantTensor QuantLayer::finish(const at::Tensor& value) {
  if (output_tap_) {
    output_tap_(value);
  }
  if (!is_prepared()) {
    return activate(value, activation_);
  }
  if (output_fake_quantize_.is_empty()) {
    QuantTensor result(learned_activation_->forward(value));
    const GridTensors grid = learned_activation_->grid();
    result.scale = grid.scale;
    result.zero_point = grid.zero_point;
    result.quant_min = learned_activation_->quant_min();
    result.quant_max = learned_activation_->quant_max();
    result.rounded = rounds();
    return result;
  }
  QuantTensor result(output_fake_quantize_->forward(value));
  result.scale = output_fake_quantize_->scale;
  result.zero_point = output_fake_quantize_->zero_point;
  result.quant_min = output_fake_quantize_->quant_min();
  result.quant_max = output_fake_quantize_->quant_max();
  result.rounded = rounds();
  return result;
}

void QuantLayer::check_cloneable() const {
  TORCH_CHECK_VALUE(!is_prepared(), "torchslim::quant: layer `", layer_name_,
                    "` is prepared and cannot be cloned; make a new network, prepare it, and move the weights with "
                    "models::save_weights and load_weights");
}

void QuantWeightLayer::freeze_weight_grid(const at::Tensor& scale) {
  TORCH_CHECK_VALUE(is_prepared(), "torchslim::quant: call quant::prepare before freeze_weight_grid");
  const at::Tensor weight = own_weight();
  TORCH_CHECK_VALUE(scale.dim() == 1 && scale.numel() == weight.size(0), "torchslim::quant: layer `", layer_name_,
                    "`: freeze_weight_grid needs one scale for each of the ", weight.size(0),
                    " output channels, got shape ", scale.sizes());
  if (weight_fake_quantize_.is_empty()) {
    WeightQuantizer quantizer(WeightQuantizerOptions(), weight);
    quantizer->freeze(scale);
    set_weight_quantizer(quantizer);
  } else {
    weight_fake_quantize_->freeze(scale);
  }
}

void QuantWeightLayer::set_weight_quantizer(const WeightQuantizer& quantizer) {
  weight_fake_quantize_ = weight_owner().register_module("weight_fake_quantize", quantizer);
}

void InputImpl::pretty_print(std::ostream& stream) const { stream << "torchslim::quant::Input()"; }

ConvBnAct2dImpl::ConvBnAct2dImpl(ConvBnAct2dOptions options)
    : QuantWeightLayer(options.activation()), options(std::move(options)) {
  reset();
}

void ConvBnAct2dImpl::reset() {
  conv = register_module("conv", torch::nn::Conv2d(options.conv()));
  if (options.batch_norm()) {
    bn = register_module("bn", torch::nn::BatchNorm2d(options.conv().out_channels()));
  }
}

std::shared_ptr<torch::nn::Module> ConvBnAct2dImpl::clone(const std::optional<at::Device>& device) const {
  check_cloneable();
  return Cloneable::clone(device);
}

void ConvBnAct2dImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::ConvBnAct2d(activation=" << name_of(activation_) << ")";
}

void ConvBnAct2dImpl::train(bool on) {
  Module::train(on);
  if (batch_norm_frozen_ && !bn.is_empty()) {
    bn->eval();
  }
}

void ConvBnAct2dImpl::freeze_batch_norm(bool frozen) {
  batch_norm_frozen_ = frozen;
  train(is_training());
}

QuantTensor ConvBnAct2dImpl::forward(const QuantTensor& x) {
  if (!is_prepared()) {
    return finish(normalize(conv->forward(x.value)));
  }
  show_input(x.value);
  const std::optional<BatchNormTensors> norm = batch_norm_tensors();
  const detail::WeightedParts parts{[this](const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
                                      return convolve(input, weight, bias);
                                    },
                                    [this](const at::Tensor& y) { return normalize(y); },
                                    1,
                                    is_training(),
                                    rounds(),
                                    fixed_scale()};
  return finish(detail::run_weighted({conv->weight, conv->bias, norm, layer_name_, weight_quantizer()}, parts, x));
}

at::Tensor ConvBnAct2dImpl::convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const {
  const auto& how = conv->options;
  const at::IntArrayRef padding = std::get<torch::ExpandingArray<2>>(how.padding());  // prepare allows no other
  return at::conv2d(x, weight, bias, how.stride(), padding, how.dilation(), how.groups());
}

at::Tensor ConvBnAct2dImpl::normalize(const at::Tensor& x) { return bn.is_empty() ? x : bn->forward(x); }

std::optional<BatchNormTensors> ConvBnAct2dImpl::batch_norm_tensors() const {
  if (bn.is_empty()) {
    return std::nullopt;
  }
  return BatchNormTensors{bn->weight, bn->bias, bn->running_mean, bn->running_var, bn->options.eps()};
}

QuantTensor LinearImpl::forward(const QuantTensor& x) {
  if (!is_prepared()) {
    return finish(torch::nn::LinearImpl::forward(x.value));
  }
  show_input(x.value);
  const detail::WeightedParts parts{
      [](const at::Tensor& input, const at::Tensor& by, const at::Tensor& plus) { return at::linear(input, by, plus); },
      [](const at::Tensor& y) { return y; },
      -1,
      is_training(),
      rounds(),
      fixed_scale()};
  return finish(detail::run_weighted({weight, bias, std::nullopt, layer_name_, weight_quantizer()}, parts, x));
}

std::shared_ptr<torch::nn::Module> LinearImpl::clone(const std::optional<at::Device>& device) const {
  check_cloneable();
  return torch::nn::LinearImpl::clone(device);
}

QuantTensor AddImpl::forward(const QuantTensor& a, const QuantTensor& b) {
  TORCH_CHECK_VALUE(a.value.sizes() == b.value.sizes(),
                    "torchslim::quant::Add: expected two tensors of one shape, got ", a.value.sizes(), " and ",
                    b.value.sizes());
  const at::Tensor sum = a.value + b.value;
  const at::Tensor scale = is_prepared() && !is_training() ? fixed_scale() : at::Tensor();
  if (!scale.defined() || !a.rounded || !b.rounded) {
    return finish(sum);
  }
  const at::Tensor y = requantized_add(a.value, a.scale, b.value, b.scale, scale);
  return finish(sum.requires_grad() ? with_gradient(y, sum) : y);
}

void AddImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::Add(activation=" << name_of(activation_) << ")";
}

QuantTensor MulImpl::forward(const QuantTensor& a, const QuantTensor& b) {
  const at::Tensor product = a.value * b.value;
  const at::Tensor scale = is_prepared() && !is_training() ? fixed_scale() : at::Tensor();
  if (!scale.defined() || !a.rounded || !b.rounded) {
    return finish(product);
  }
  const at::Tensor y = requantized_mul(a.value, a.scale, b.value, b.scale, scale);
  return finish(product.requires_grad() ? with_gradient(y, product) : y);
}

void MulImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::Mul(activation=" << name_of(activation_) << ")";
}

QuantTensor ConcatImpl::forward(const std::vector<QuantTensor>& tensors) {
  std::vector<at::Tensor> values;
  for (const QuantTensor& tensor : tensors) {
    values.push_back(tensor.value);
  }
  return finish(at::cat(values, dim_));
}

void ConcatImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::Concat(dim=" << dim_ << ", activation=" << name_of(activation_) << ")";
}

QuantTensor GlobalAvgPool2dImpl::forward(const QuantTensor& x) {
  at::Tensor mean = at::adaptive_avg_pool2d(x.value, {1, 1});
  if (x.rounded && is_tracing()) {
    mean = fake_quantize(mean, x.scale, x.zero_point, x.quant_min, x.quant_max);
  } else if (x.rounded) {
    mean = round_average(mean, x.scale, x.value.size(2) * x.value.size(3));
  }
  return on_grid_of(x, std::move(mean));
}

void GlobalAvgPool2dImpl::pretty_print(std::ostream& stream) const { stream << "torchslim::quant::GlobalAvgPool2d()"; }

QuantTensor MaxPool2dImpl::forward(const QuantTensor& x) {
  return on_grid_of(x, at::max_pool2d(x.value, options.kernel_size(), options.stride(), options.padding(),
                                      options.dilation(), options.ceil_mode()));
}

void MaxPool2dImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::MaxPool2d(kernel_size=" << options.kernel_size() << ", stride=" << options.stride()
         << ")";
}

QuantTensor FlattenImpl::forward(const QuantTensor& x) { return on_grid_of(x, at::flatten(x.value, 1)); }

void FlattenImpl::pretty_print(std::ostream& stream) const { stream << "torchslim::quant::Flatten()"; }

}  // namespace torchslim::quant
