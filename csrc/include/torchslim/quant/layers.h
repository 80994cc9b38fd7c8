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
#include <torchslim/quant/learned_activation.h>
#include <torchslim/quant/weight_quantizer.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

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
  at::Tensor scale;          // float32 (); undefined before prepare
  at::Tensor zero_point;     // int32 (); undefined before prepare
  int64_t quant_min = -128;  // the smallest and largest code of the grid
  int64_t quant_max = 127;
  bool rounded = false;  // whether `value` lies on the grid: false where fake-quantise is disabled
};

/// The activation that a layer computes together with its quantiser.
enum class Activation { kNone, kRelu, kRelu6 };

/// What `prepare` switches from float to int8; base of the layers below that hold a quantiser.
class TORCHSLIM_API QuantLayer {
 public:
  virtual ~QuantLayer() = default;

  /// Tells whether `prepare` has switched this layer on.
  bool is_prepared() const { return !output_fake_quantize_.is_empty() || !learned_activation_.is_empty(); }

  /// Returns the quantiser of the layer's output; throws c10::ValueError before `prepare`, and where it is a learned one.
  FakeQuantize output_fake_quantize() const;

  /// Makes the activation a ReLU if it is a ReLU6; throws c10::ValueError after `prepare`.
  void replace_relu6();
  /// Returns the learned quantiser of the layer's output; empty where there is none.
  LearnedActivation learned_activation() const { return learned_activation_; }

 protected:
  explicit QuantLayer(Activation activation) : activation_(activation) {}

  /// Applies the activation and, when prepared, the quantiser.
  QuantTensor finish(const at::Tensor& value);

  /// Whether the output's quantiser rounds.
  bool rounds() const;

  /// The scale of the output's grid where it rounds and stands still, so that sums can be requantised to it; else undefined.
  at::Tensor fixed_scale() const;

  /// The child of `owner` that the quantiser becomes; called once, by prepare.
  virtual void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) = 0;

  /// Throws c10::ValueError if the layer is prepared: a copy would lose its quantiser.
  void check_cloneable() const;

  /// Shows the input of a prepared convolution or linear layer to whoever walks through the module.
  void show_input(const at::Tensor& x) const {
    if (input_tap_) {
      input_tap_(x);
    }
  }

  Activation activation_;
  std::string layer_name_;  // in the prepared module, for messages

 private:
  friend class Preparation;
  friend class PreparedGraphImpl;
  friend class LayerWalk;
  std::function<void(const at::Tensor&)> input_tap_;
  std::function<void(const at::Tensor&)> output_tap_;  // sees what `finish` is given
  FakeQuantize output_fake_quantize_{nullptr};
  LearnedActivation learned_activation_{nullptr};  // in its place, if there is one
};

/// A layer with a weight.
class TORCHSLIM_API QuantWeightLayer : public QuantLayer {
 public:
  /// Returns what rounds the weight once prepared; empty for the int8 rule (`fake_quantize_weight`).
  WeightQuantizer weight_fake_quantize() const { return weight_fake_quantize_; }

  /// Whether the weight lies on an even grid of int8 codes; if not (levels, floats), the layer runs in float when it ships.
  bool has_codes() const { return weight_fake_quantize_.is_empty() || weight_fake_quantize_->options.has_codes(); }

  /// Keeps the weight's grid at `scale` (float32 (O), > 0) from now on, as buffer `weight_fake_quantize.scale`: for weights
  /// that were rounded to it by other means, such as `gptq`. Throws c10::ValueError before `prepare` and for another shape.
  void freeze_weight_grid(const at::Tensor& scale);

 protected:
  explicit QuantWeightLayer(Activation activation) : QuantLayer(activation) {}

  /// Returns the module that holds the weight's quantiser.
  virtual torch::nn::Module& weight_owner() = 0;
  /// Returns the weight, float32 (O, ...).
  virtual at::Tensor own_weight() { return weight_owner().named_parameters(/*recurse=*/false)["weight"]; }
  WeightQuantizerImpl* weight_quantizer() const {
    return weight_fake_quantize_.is_empty() ? nullptr : weight_fake_quantize_.ptr().get();
  }

 private:
  friend class Preparation;
  friend class PreparedGraphImpl;
  friend class LayerWalk;
  void set_weight_quantizer(const WeightQuantizer& quantizer);
  WeightQuantizer weight_fake_quantize_{nullptr};
};

/// Where images enter a network: rounds them to a grid of their own once prepared (`input_fake_quantize`).
class TORCHSLIM_API InputImpl : public torch::nn::Cloneable<InputImpl>, public QuantLayer {
 public:
  InputImpl() : QuantLayer(Activation::kNone) {}
  QuantTensor forward(const at::Tensor& images) { return finish(images); }
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;

 private:
  void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) override;
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
class TORCHSLIM_API ConvBnAct2dImpl : public torch::nn::Cloneable<ConvBnAct2dImpl>, public QuantWeightLayer {
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
  void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) override;
  torch::nn::Module& weight_owner() override { return *conv; }
  at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const;
  at::Tensor normalize(const at::Tensor& x);
  std::optional<BatchNormTensors> batch_norm_tensors() const;

  bool batch_norm_frozen_ = false;
};
TORCH_MODULE(ConvBnAct2d);

/// A linear layer of (N, features), with an activation if given; `output_fake_quantize` is its child once prepared.
/// The forms of its forward are those of ConvBnAct2d.
class TORCHSLIM_API LinearImpl : public torch::nn::LinearImpl, public QuantWeightLayer {
 public:
  LinearImpl(int64_t in_features, int64_t out_features)
      : LinearImpl(torch::nn::LinearOptions(in_features, out_features)) {}
  explicit LinearImpl(const torch::nn::LinearOptions& options, Activation activation = Activation::kNone)
      : torch::nn::LinearImpl(options), QuantWeightLayer(activation) {}
  QuantTensor forward(const QuantTensor& x);
  std::shared_ptr<torch::nn::Module> clone(const std::optional<at::Device>& device = std::nullopt) const override;

 private:
  void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) override;
  torch::nn::Module& weight_owner() override { return *this; }
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
  void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) override;
};
TORCH_MODULE(Add);

/// The product of two tensors, of one shape or of images (N, C, H, W) and a factor (N, C, 1, 1), with an activation if given;
/// `mul_fake_quantize` is a child of the module that holds this layer once prepared.
class TORCHSLIM_API MulImpl : public torch::nn::Cloneable<MulImpl>, public QuantLayer {
 public:
  explicit MulImpl(Activation activation = Activation::kNone) : QuantLayer(activation) {}
  QuantTensor forward(const QuantTensor& a, const QuantTensor& b);
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;

 private:
  void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) override;
};
TORCH_MODULE(Mul);

/// Tensors one behind the other along `dim`, brought to one grid, with an activation if given; `concat_fake_quantize` is a
/// child of the module that holds this layer once prepared.
class TORCHSLIM_API ConcatImpl : public torch::nn::Cloneable<ConcatImpl>, public QuantLayer {
 public:
  explicit ConcatImpl(int64_t dim = 1, Activation activation = Activation::kNone) : QuantLayer(activation), dim_(dim) {}
  QuantTensor forward(const std::vector<QuantTensor>& tensors);
  void reset() override {}
  void pretty_print(std::ostream& stream) const override;

 private:
  void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) override;
  int64_t dim_;
};
TORCH_MODULE(Concat);

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

/// What one layer has otherwise than `PrepareOptions` says; what is empty is as it says there.
///
/// Example: PrepareOptions().layer("classifier", LayerOptions().bits(8)).layer("features.3", LayerOptions().weight_bits(2))
struct TORCHSLIM_API LayerOptions {
  /// Whether the layer stays in float. What reads it then must be in float too, or nothing.
  TORCH_ARG(bool, to_float) = false;
  TORCH_ARG(std::optional<int64_t>, bits) = std::nullopt;
  TORCH_ARG(std::optional<int64_t>, activation_bits) = std::nullopt;
  TORCH_ARG(std::optional<bool>, symmetric) = std::nullopt;
  TORCH_ARG(std::optional<std::string>, observer) = std::nullopt;
  TORCH_ARG(std::optional<std::string>, activation_quantizer) = std::nullopt;
  TORCH_ARG(std::optional<int64_t>, weight_bits) = std::nullopt;
  TORCH_ARG(std::optional<std::string>, weight_quantizer) = std::nullopt;
  TORCH_ARG(std::optional<std::string>, scale_search) = std::nullopt;
};

/// Options of `prepare`. Activations have one grid each, weights one for each output channel; int8 unless bits say less.
///
/// Example: PrepareOptions().bits(4).weight_quantizer("lsq").layer("classifier", LayerOptions().bits(8))
struct TORCHSLIM_API PrepareOptions {
  /// How the ranges of activations follow what is seen: any of `FakeQuantizeOptions`.
  TORCH_ARG(std::string, observer) = "moving_average";
  /// How far a moving average goes towards a new range, in (0, 1].
  TORCH_ARG(double, averaging_constant) = 0.1;
  /// Width of the codes of activations and weights, at most 8. Empty: 8, and for weights the quantiser's own.
  TORCH_ARG(std::optional<int64_t>, bits) = std::nullopt;
  /// The same for activations alone.
  TORCH_ARG(std::optional<int64_t>, activation_bits) = std::nullopt;
  /// What activations are rounded to: "fake_quantize", which follows their range, or a learned quantiser of
  /// `LearnedActivationOptions`. "pact" goes behind ReLUs only; elsewhere it is "fake_quantize".
  TORCH_ARG(std::string, activation_quantizer) = "fake_quantize";
  /// Whether the zero point of activations is 0; learned quantisers have a rule of their own.
  TORCH_ARG(bool, symmetric) = false;
  /// The same as `bits` for weights alone.
  TORCH_ARG(std::optional<int64_t>, weight_bits) = std::nullopt;
  /// What weights are rounded to, and where their scale comes from: see `WeightQuantizerOptions`.
  TORCH_ARG(std::string, weight_quantizer) = "fake_quantize";
  TORCH_ARG(std::string, scale_search) = "absmax";

 public:
  /// Sets what the layer of that dotted name (the convolution's own name counts too) has otherwise.
  PrepareOptions& layer(const std::string& name, const LayerOptions& options) {
    layers_[name] = options;
    return *this;
  }
  const std::map<std::string, LayerOptions>& layers() const { return layers_; }

  /// Sets what all operations of a kind have otherwise: a name of `graph::operation_rules`, such as "conv", "add" or "input".
  /// What `layer` sets comes before it.
  PrepareOptions& kind(const std::string& kind, const LayerOptions& options) {
    kinds_[kind] = options;
    return *this;
  }
  const std::map<std::string, LayerOptions>& kinds() const { return kinds_; }

 private:
  std::map<std::string, LayerOptions> layers_;
  std::map<std::string, LayerOptions> kinds_;
};

/// Switches every layer of this header inside `module` from float to int8, in place; keys of parameters stay, the
/// quantisers' come in under the same names as with Python's `torchslim.quant.prepare`. Optimisers go on as they are.
/// Throws c10::ValueError, before anything is changed, for NaN or infinity in a parameter or buffer, a layer with
/// parameters that is none of this header's, padding other than zeros, a module without any, or one that is prepared
/// already, a layer of `options` that is not there, and bits or quantisers that make no sense; c10::TypeError for parameters
/// that are not float32. Each by name.
TORCHSLIM_API void prepare(torch::nn::Module& module, const PrepareOptions& options = {});

/// Let training forwards move the ranges of all quantisers in `module`, or hold them.
TORCHSLIM_API void enable_observer(torch::nn::Module& module);
TORCHSLIM_API void disable_observer(torch::nn::Module& module);

/// Let all quantisers in `module` round, or pass floats through.
TORCHSLIM_API void enable_fake_quant(torch::nn::Module& module);
TORCHSLIM_API void disable_fake_quant(torch::nn::Module& module);

/// Sets the grids of all quantisers in `module` to what follows from their ranges, where something was seen. Training
/// forwards do so themselves; needed after ranges were changed from outside, as by an average of buffers.
TORCHSLIM_API void update_qparams(torch::nn::Module& module);

/// Keeps the running statistics of the batch norms in `module` as they are, in training too; gamma and beta still train.
/// Done in the last epochs, training then sees the statistics that ship. False lets them move again.
TORCHSLIM_API void freeze_batch_norm(torch::nn::Module& module, bool frozen = true);

}  // namespace torchslim::quant
