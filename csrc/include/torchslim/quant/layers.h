// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/pooling.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/fold.h>

#include <string>

// Layers to write a network with that trains in float first and in int8 after `prepare`, under the same names:
//
//   struct NetImpl : torch::nn::Module {
//     torchslim::quant::Input input;
//     torchslim::quant::ConvBnAct2d conv{torch::nn::Conv2dOptions(1, 16, 3).bias(false)};
//     torchslim::quant::GlobalAvgPool2d pool;
//     torchslim::quant::Flatten flatten;
//     torchslim::quant::Linear classifier{16, 10};
//     NetImpl() {
//       register_module("input", input);
//       register_module("conv", conv);
//       register_module("classifier", classifier);
//     }
//     at::Tensor forward(at::Tensor images) { return classifier(flatten(pool(conv(input(images))))).value; }
//   };
//   TORCH_MODULE(Net);
//   Net net; ... train ...; torchslim::quant::prepare(*net); ... train on ...

namespace torchslim::quant {

/// A tensor between two layers, with the grid of the quantiser that made it, so that the next layer can round its bias
/// and average pools can stay on the grid.
struct TORCHSLIM_API QuantTensor {
  QuantTensor() = default;
  /// A tensor in plain float, with no grid.
  QuantTensor(at::Tensor value) : value(std::move(value)) {}  // NOLINT: implicit, as a network starts from a tensor

  at::Tensor value;
  at::Tensor scale;       // float32 (); undefined before prepare
  at::Tensor zero_point;  // int32 (); undefined before prepare
  bool rounded = false;   // whether `value` lies on the grid: false where fake-quantise is disabled
};

/// The activation that a layer computes together with its quantiser.
enum class Activation { kNone, kRelu, kRelu6 };

/// What `prepare` switches from float to int8; base of the layers below that hold a quantiser.
class TORCHSLIM_API QuantLayer {
 public:
  virtual ~QuantLayer() = default;

  /// Tells whether `prepare` has switched this layer on.
  bool is_prepared() const { return !output_fake_quantize_.is_empty(); }

  /// Returns the quantiser of the layer's output; throws c10::ValueError before `prepare`.
  FakeQuantize output_fake_quantize() const;

 protected:
  explicit QuantLayer(Activation activation) : activation_(activation) {}

  /// Applies the activation and, when prepared, the quantiser.
  QuantTensor finish(const at::Tensor& value);

  /// The child of `owner` that the quantiser becomes; called once, by prepare.
  virtual void add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) = 0;

  /// Throws c10::ValueError if the layer is prepared: a copy would lose its quantiser.
  void check_cloneable() const;

  Activation activation_;
  std::string layer_name_;  // in the prepared module, for messages

 private:
  friend class Preparation;
  FakeQuantize output_fake_quantize_{nullptr};
};

/// Where images enter a network: rounds them to a grid of their own once prepared (`input_fake_quantize`).
class TORCHSLIM_API InputImpl : public torch::nn::Cloneable<InputImpl>, public QuantLayer {
 public:
  InputImpl() : QuantLayer(Activation::kNone) {}
  QuantTensor forward(const at::Tensor& images) { return finish(images); }
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;

 private:
  void add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) override;
};
TORCH_MODULE(Input);

/// Options of ConvBnAct2d.
struct TORCHSLIM_API ConvBnAct2dOptions {
  ConvBnAct2dOptions(torch::nn::Conv2dOptions conv) : conv_(std::move(conv)) {}  // NOLINT: implicit, as in LibTorch
  /// The convolution; pads with zeros, by numbers. Give it `.bias(false)` where a batch norm follows.
  TORCH_ARG(torch::nn::Conv2dOptions, conv);
  /// Whether a batch norm follows.
  TORCH_ARG(bool, batch_norm) = true;
  /// What is applied to its result.
  TORCH_ARG(Activation, activation) = Activation::kRelu;
};

/// Convolution, batch norm, activation: children `conv` and `bn`, and `conv.output_fake_quantize` once prepared.
/// Prepared, a forward takes one of these forms, as Python's QuantConv2d:
///   training      the convolution with its weight on the grid, the batch norm with the batch's statistics, then the
///                 quantiser with the activation in it
///   eval          the integers that are exported (`fold_layer`), as floats
///   under a trace single operations that `graph::capture` knows
///   quantiser's fake-quantise disabled: plain float
/// Throws c10::ValueError with the layer's name if its input has no grid or its weights cannot be folded.
class TORCHSLIM_API ConvBnAct2dImpl : public torch::nn::Cloneable<ConvBnAct2dImpl>, public QuantLayer {
 public:
  explicit ConvBnAct2dImpl(ConvBnAct2dOptions options);
  QuantTensor forward(const QuantTensor& x);
  void reset() override;
  std::shared_ptr<torch::nn::Module> clone(const std::optional<at::Device>& device = std::nullopt) const override;
  void pretty_print(std::ostream& stream) const override;
  /// Switches training and eval; a frozen batch norm stays in eval.
  void train(bool on = true) override;
  /// See the function of this name below.
  void freeze_batch_norm(bool frozen = true);

  ConvBnAct2dOptions options;
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d bn{nullptr};  // empty without batch norm

 private:
  void add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) override;
  at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const;
  at::Tensor normalize(const at::Tensor& x);
  std::optional<BatchNormTensors> batch_norm_tensors() const;

  bool batch_norm_frozen_ = false;
};
TORCH_MODULE(ConvBnAct2d);

/// A linear layer of (N, features), with an activation if given; `output_fake_quantize` is its child once prepared.
/// The forms of its forward are those of ConvBnAct2d.
class TORCHSLIM_API LinearImpl : public torch::nn::LinearImpl, public QuantLayer {
 public:
  LinearImpl(int64_t in_features, int64_t out_features)
      : LinearImpl(torch::nn::LinearOptions(in_features, out_features)) {}
  explicit LinearImpl(const torch::nn::LinearOptions& options, Activation activation = Activation::kNone)
      : torch::nn::LinearImpl(options), QuantLayer(activation) {}
  QuantTensor forward(const QuantTensor& x);
  std::shared_ptr<torch::nn::Module> clone(const std::optional<at::Device>& device = std::nullopt) const override;

 private:
  void add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) override;
};
TORCH_MODULE(Linear);

/// The sum of two tensors of one shape, with an activation if given; `add_fake_quantize` is a child of the module that
/// holds this layer once prepared.
class TORCHSLIM_API AddImpl : public torch::nn::Cloneable<AddImpl>, public QuantLayer {
 public:
  explicit AddImpl(Activation activation = Activation::kNone) : QuantLayer(activation) {}
  QuantTensor forward(const QuantTensor& a, const QuantTensor& b);
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;

 private:
  void add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) override;
};
TORCH_MODULE(Add);

/// The mean over height and width, (N, C, H, W) to (N, C, 1, 1); rounded to the grid of its input, as integers do (`round_average`).
class TORCHSLIM_API GlobalAvgPool2dImpl : public torch::nn::Cloneable<GlobalAvgPool2dImpl> {
 public:
  QuantTensor forward(const QuantTensor& x);
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;
};
TORCH_MODULE(GlobalAvgPool2d);

/// The maximum over windows; stays on the grid of its input.
class TORCHSLIM_API MaxPool2dImpl : public torch::nn::Cloneable<MaxPool2dImpl> {
 public:
  explicit MaxPool2dImpl(torch::nn::MaxPool2dOptions options) : options(std::move(options)) {}
  QuantTensor forward(const QuantTensor& x);
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;

  torch::nn::MaxPool2dOptions options;
};
TORCH_MODULE(MaxPool2d);

/// (N, ...) to (N, features); stays on the grid of its input.
class TORCHSLIM_API FlattenImpl : public torch::nn::Cloneable<FlattenImpl> {
 public:
  QuantTensor forward(const QuantTensor& x);
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;
};
TORCH_MODULE(Flatten);

/// Options of `prepare`. The grids are int8: per tensor for activations, per output channel for weights.
struct TORCHSLIM_API PrepareOptions {
  /// How the ranges of activations follow what is seen: "moving_average" or "min_max".
  TORCH_ARG(std::string, observer) = "moving_average";
  /// How far a moving average goes towards a new range, in (0, 1].
  TORCH_ARG(double, averaging_constant) = 0.1;
};

/// Switches every layer of this header inside `module` from float to int8, in place; keys of parameters stay, the
/// quantisers' come in under the same names as with Python's `torchslim.quant.prepare`. Optimisers go on as they are.
/// Throws c10::ValueError, before anything is changed, for NaN or infinity in a parameter or buffer, a layer with
/// parameters that is none of this header's, padding other than zeros, a module without any, or one that is prepared
/// already; c10::TypeError for parameters that are not float32. Each by name.
TORCHSLIM_API void prepare(torch::nn::Module& module, const PrepareOptions& options = {});

/// Let training forwards move the ranges of all quantisers in `module`, or hold them.
TORCHSLIM_API void enable_observer(torch::nn::Module& module);
TORCHSLIM_API void disable_observer(torch::nn::Module& module);

/// Let all quantisers in `module` round, or pass floats through.
TORCHSLIM_API void enable_fake_quant(torch::nn::Module& module);
TORCHSLIM_API void disable_fake_quant(torch::nn::Module& module);

/// Keeps the running statistics of the batch norms in `module` as they are, in training too; gamma and beta still train.
/// Done in the last epochs, training then sees the statistics that ship. False lets them move again.
TORCHSLIM_API void freeze_batch_norm(torch::nn::Module& module, bool frozen = true);

}  // namespace torchslim::quant
