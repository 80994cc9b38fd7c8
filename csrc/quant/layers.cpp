// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/TracerMode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/flatten.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/relu6.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/requantize.h>
#include <torchslim/quant/round_average.h>

namespace torchslim::quant {
namespace {

constexpr int64_t kLargestWeightCode = 127;

bool is_tracing() { return at::tracer::impl::is_dispatch_enabled(); }

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

/// A weight and a bias (which may be undefined) that a layer's product runs with.
struct WeightAndBias {
  at::Tensor weight;
  at::Tensor bias;
};

/// What a prepared convolution or linear layer runs with in one of its forms.
struct LayerTensors {
  const at::Tensor& weight;
  const at::Tensor& bias;
  const std::optional<BatchNormTensors>& batch_norm;
  const at::Tensor& input_scale;
  const std::string& name;
  WeightQuantizerImpl* quantizer;  // null: the int8 rule

  bool has_codes() const { return quantizer == nullptr || quantizer->options.has_codes(); }
};

RoundedWeight rounded_weight(const LayerTensors& layer) {
  if (layer.quantizer != nullptr) {
    return layer.quantizer->forward(layer.weight);
  }
  const auto [weight, scale] = fake_quantize_weight(layer.weight);
  return {weight, scale};
}

WeightAndBias trained(const LayerTensors& layer) {
  const RoundedWeight rounded = rounded_weight(layer);
  const bool rounds_bias = layer.bias.defined() && !layer.batch_norm && layer.has_codes();
  return {rounded.weight, rounds_bias ? round_bias(layer.bias, layer.input_scale, rounded.scale) : layer.bias};
}

/// The weight as one fake-quantise node; its scale is a constant there, as it is no parameter.
at::Tensor traced_weight(const LayerTensors& layer) {
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

/// Weight and bias as `folded` has them, but for rounding the bias: so that eval() has gradients too.
WeightAndBias differentiable(const LayerTensors& layer) {
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

/// Exactly `value`, with the gradient of `smooth`.
at::Tensor with_gradient(const at::Tensor& value, const at::Tensor& smooth) {
  return smooth.defined() ? value + (smooth - smooth.detach()) : value;
}

FoldedWeight fold_by_name(const LayerTensors& layer) {
  const at::AutoGradMode no_grad(false);
  try {
    if (layer.quantizer == nullptr) {
      return fold_layer(layer.weight, layer.bias, layer.batch_norm, layer.input_scale);
    }
    const QuantizedWeight quantized = layer.quantizer->quantize(layer.weight);
    return fold_layer(quantized, layer.bias, layer.batch_norm, layer.input_scale);
  } catch (const c10::ValueError& error) {
    TORCH_CHECK_VALUE(false, "layer `", layer.name, "`: ", error.what_without_backtrace());
  }
}

/// The integers that the layer ships with, as floats.
WeightAndBias folded(const LayerTensors& layer) {
  const FoldedWeight integers = fold_by_name(layer);
  const at::Tensor weight = dequantize_weight(integers.codes, integers.scale);
  if (!at::GradMode::is_enabled() || !layer.weight.requires_grad()) {
    return {weight, integers.bias};
  }
  const WeightAndBias smooth = differentiable(layer);
  return {with_gradient(weight, smooth.weight), with_gradient(integers.bias, smooth.bias)};
}

/// What the layer gives in eval before its quantiser, on that one's grid: sums of products of codes, requantised as runtimes
/// do. With the gradient of the folded layer. `product(x, weight, bias)` is the layer's own part, channels along `axis`.
template <typename Product>
at::Tensor evaluated(const LayerTensors& layer, const QuantTensor& x, const at::Tensor& output_scale, int64_t axis,
                     const Product& product) {
  const auto in_floats = [&] {
    const auto [weight, bias] = folded(layer);
    return product(x.value, weight, bias);
  };
  if (!x.rounded || !output_scale.defined()) {
    return in_floats();
  }
  const bool wants_gradient = at::GradMode::is_enabled() && (x.value.requires_grad() || layer.weight.requires_grad());
  at::Tensor y;
  {
    const at::AutoGradMode no_grad(false);
    const FoldedWeight integers = fold_by_name(layer);
    const at::Tensor step = integers.scale * x.scale;
    const at::Tensor sums =
        product(steps_of(x.value, x.scale), integers.codes.to(at::kFloat), (integers.bias * step.reciprocal()).round());
    y = requantize_sums(sums, step, output_scale, axis < 0 ? axis + sums.dim() : axis);
  }
  return wants_gradient ? with_gradient(y, in_floats()) : y;
}

void check_has_grid(const QuantTensor& x, const std::string& name) {
  TORCH_CHECK_VALUE(x.scale.defined(), "torchslim::quant: layer `", name,
                    "` is prepared, but its input has no grid; let images enter through quant::Input, and prepare "
                    "the whole network at once");
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
  if (!rounds()) {
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
  const at::Tensor& weight = weight_owner().named_parameters(/*recurse=*/false)["weight"];
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
  check_has_grid(x, layer_name_);
  show_input(x.value);
  const std::optional<BatchNormTensors> norm = batch_norm_tensors();
  const LayerTensors layer{conv->weight, conv->bias, norm, x.scale, layer_name_, weight_quantizer()};
  if (!rounds()) {
    return finish(normalize(conv->forward(x.value)));
  }
  if (is_tracing()) {
    return finish(normalize(convolve(x.value, traced_weight(layer), layer.bias)));
  }
  if (is_training() || !layer.has_codes()) {
    const auto [weight, bias] = trained(layer);
    return finish(normalize(convolve(x.value, weight, bias)));
  }
  return finish(evaluated(layer, x, fixed_scale(), 1,
                          [this](const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
                            return convolve(input, weight, bias);
                          }));
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
  check_has_grid(x, layer_name_);
  show_input(x.value);
  const LayerTensors layer{weight, bias, std::nullopt, x.scale, layer_name_, weight_quantizer()};
  if (!rounds()) {
    return finish(torch::nn::LinearImpl::forward(x.value));
  }
  if (is_tracing()) {
    return finish(at::linear(x.value, traced_weight(layer), layer.bias));
  }
  if (is_training() || !layer.has_codes()) {
    const auto [rounded_weight, rounded_bias] = trained(layer);
    return finish(at::linear(x.value, rounded_weight, rounded_bias));
  }
  return finish(
      evaluated(layer, x, fixed_scale(), -1, [](const at::Tensor& input, const at::Tensor& by, const at::Tensor& plus) {
        return at::linear(input, by, plus);
      }));
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
  const at::Tensor scale = is_prepared() && !is_tracing() && !is_training() ? fixed_scale() : at::Tensor();
  if (!scale.defined() || !a.rounded || !b.rounded) {
    return finish(sum);
  }
  const at::Tensor y = requantized_add(a.value, a.scale, b.value, b.scale, scale);
  return finish(sum.requires_grad() ? with_gradient(y, sum) : y);
}

void AddImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::Add(activation=" << name_of(activation_) << ")";
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
