// SPDX-License-Identifier: BSD-3-Clause
#include "quant/layer_settings.h"

#include <c10/util/Exception.h>

#include <initializer_list>
#include <optional>

namespace torchslim::quant::detail {
namespace {

template <typename T>
std::optional<T> first_of(std::initializer_list<std::optional<T>> choices) {
  for (const auto& choice : choices) {
    if (choice) {
      return choice;
    }
  }
  return std::nullopt;
}

WeightQuantizerOptions weight_options(const LayerOptions& own, const PrepareOptions& options) {
  auto weight = WeightQuantizerOptions()
                    .quantizer(own.weight_quantizer().value_or(options.weight_quantizer()))
                    .bits(first_of({own.weight_bits(), own.bits()}));
  weight.scale_search(own.scale_search().value_or(own.weight_quantizer() ? "absmax" : options.scale_search()));
  if (!weight.bits()) {
    weight.bits(first_of({options.weight_bits(), options.bits()}));
    if (weight.bits() && own.weight_quantizer() && !weight.takes(*weight.bits())) {
      weight.bits(std::nullopt);  // a wider setting that this quantiser cannot mean
    }
  }
  if (weight.bits() == 1 && !own.weight_quantizer() && options.weight_quantizer() == "fake_quantize") {
    weight.quantizer("binary");
  }
  return weight;
}

}  // namespace

std::shared_ptr<torch::nn::Module> ActivationQuantizer::module() const {
  return learned.is_empty() ? std::shared_ptr<torch::nn::Module>(following.ptr())
                            : std::shared_ptr<torch::nn::Module>(learned.ptr());
}

bool stays_in_float(const std::string& layer, const LayerOptions& own) {
  TORCH_CHECK_VALUE(!own.to_float() || (!own.bits() && !own.activation_bits() && !own.weight_bits()),
                    "torchslim::quant::prepare: layer `", layer, "` cannot be in float and have bits");
  return own.to_float();
}

LayerOptions merged(const LayerOptions& wide, const LayerOptions& own) {
  const auto bits = own.bits() ? own.bits() : wide.bits();
  return LayerOptions()
      .to_float(own.to_float())
      .bits(bits)
      .activation_bits(first_of({own.activation_bits(), own.bits() ? own.bits() : wide.activation_bits()}))
      .symmetric(first_of({own.symmetric(), wide.symmetric()}))
      .observer(first_of({own.observer(), wide.observer()}))
      .activation_quantizer(first_of({own.activation_quantizer(), wide.activation_quantizer()}))
      .weight_bits(first_of({own.weight_bits(), own.bits() ? own.bits() : wide.weight_bits()}))
      .weight_quantizer(first_of({own.weight_quantizer(), wide.weight_quantizer()}))
      .scale_search(first_of({own.scale_search(), wide.scale_search()}));
}

ActivationQuantizer make_activation_quantizer(const std::string& layer, const LayerOptions& own,
                                              const PrepareOptions& options, Activation activation) {
  const char* name = activation == Activation::kRelu ? "relu" : activation == Activation::kRelu6 ? "relu6" : "none";
  const auto bits = first_of({own.activation_bits(), own.bits(), options.activation_bits(), options.bits()});
  TORCH_CHECK_VALUE(bits.value_or(8) <= 8, "torchslim::quant::prepare: layer `", layer,
                    "`: activations have at most 8 bits, got ", bits.value_or(8));
  const std::string kind = own.activation_quantizer().value_or(options.activation_quantizer());
  ActivationQuantizer made;
  if (kind != "fake_quantize" && !(kind == "pact" && activation == Activation::kNone)) {
    made.learned =
        LearnedActivation(LearnedActivationOptions().quantizer(kind).bits(bits.value_or(8)).activation(name));
    return made;
  }
  made.following = FakeQuantize(FakeQuantizeOptions()
                                    .observer(own.observer().value_or(options.observer()))
                                    .averaging_constant(options.averaging_constant())
                                    .bits(bits.value_or(8))
                                    .symmetric(own.symmetric().value_or(options.symmetric()))
                                    .activation(name));
  return made;
}

WeightQuantizer make_weight_quantizer(const std::string& layer, const LayerOptions& own, const PrepareOptions& options,
                                      const at::Tensor& weight) {
  const WeightQuantizerOptions chosen = weight_options(own, options);
  chosen.check("torchslim::quant::prepare: layer `" + layer + "`");
  return chosen.is_default() ? WeightQuantizer(nullptr) : WeightQuantizer(chosen, weight);
}

}  // namespace torchslim::quant::detail
