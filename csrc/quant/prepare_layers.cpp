// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/isfinite.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/summary.h>

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "quant/quantization_config.h"

namespace torchslim::quant {
namespace {

std::string join(const std::string& parent, const std::string& name) {
  return parent.empty() ? name : parent + "." + name;
}

/// Registers `quantizer` with `owner` as `name`, or as the first free of name_1, name_2, ..., as Python does.
void register_quantizer(torch::nn::Module& owner, const std::string& name,
                        const std::shared_ptr<torch::nn::Module>& quantizer) {
  std::string free_name = name;
  for (int i = 1; owner.named_children().contains(free_name); ++i) {
    free_name = name + "_" + std::to_string(i);
  }
  owner.register_module(free_name, quantizer);
}

void check_tensor(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.is_floating_point()) {
    return;
  }
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kFloat, "torchslim::quant::prepare: expected float32, but `", name,
                   "` is ", tensor.scalar_type());
  TORCH_CHECK_VALUE(at::isfinite(tensor).all().item<bool>(), "torchslim::quant::prepare: `", name,
                    "` holds NaN or infinity; the model is broken, load weights from before that");
}

template <typename Action>
void for_each_quantizer(torch::nn::Module& module, const char* who, const Action& action) {
  bool found = false;
  module.apply([&](torch::nn::Module& child) {
    if (auto* quantizer = child.as<FakeQuantizeImpl>()) {
      action(*quantizer);
      found = true;
    } else if (auto* learned = child.as<LearnedActivationImpl>()) {
      action(*learned);
      found = true;
    }
  });
  TORCH_CHECK_VALUE(found, "torchslim::quant::", who, ": the module holds no quantiser; call quant::prepare first");
}

}  // namespace

/// One call of `prepare`: finds and checks the layers first, then changes them.
class Preparation {
 public:
  Preparation(torch::nn::Module& root, const PrepareOptions& options) : root_(root), options_(options) {
    visit(root, root, "");
    TORCH_CHECK_VALUE(!found_.empty(),
                      "torchslim::quant::prepare: the module holds none of the layers of "
                      "quant/layers.h, such as quant::ConvBnAct2d");
    check_names();
    for (const auto& item : root.named_parameters()) {
      check_tensor(item.key(), item.value());
    }
    for (const auto& item : root.named_buffers()) {
      check_tensor(item.key(), item.value());
    }
    make_quantizers();
  }

  void apply() {
    for (const Found& found : found_) {
      if (found.options.to_float()) {
        continue;
      }
      found.layer->layer_name_ = found.name;
      const bool learned = !found.learned.is_empty();
      found.layer->add_quantizer(*found.owner, learned ? std::shared_ptr<torch::nn::Module>(found.learned.ptr())
                                                       : std::shared_ptr<torch::nn::Module>(found.quantizer.ptr()));
      found.layer->output_fake_quantize_ = found.quantizer;
      found.layer->learned_activation_ = found.learned;
      if (!found.weight_quantizer.is_empty()) {
        dynamic_cast<QuantWeightLayer&>(*found.layer).set_weight_quantizer(found.weight_quantizer);
      }
    }
    if (const at::Tensor config = detail::quantization_config(root_, float_layers(root_)); config.defined()) {
      root_.register_buffer(detail::kQuantizationConfig, config);
    }
  }

 private:
  struct Found {
    QuantLayer* layer;
    torch::nn::Module* owner;  // the module that holds it
    std::string name;
    LayerOptions options{};
    FakeQuantize quantizer{nullptr};
    LearnedActivation learned{nullptr};         // in its place
    WeightQuantizer weight_quantizer{nullptr};  // empty: the int8 rule
  };

  // All before anything is changed, as each refuses options that make no sense.
  void make_quantizers() {
    const std::vector<at::Tensor> parameters = root_.parameters();
    for (Found& found : found_) {
      if (found.options.to_float()) {
        TORCH_CHECK_VALUE(!found.options.bits() && !found.options.activation_bits() && !found.options.weight_bits(),
                          "torchslim::quant::prepare: layer `", found.name, "` cannot be in float and have bits");
        continue;
      }
      make_quantizer(found);
      torch::nn::Module& made = found.quantizer.is_empty() ? static_cast<torch::nn::Module&>(*found.learned)
                                                           : static_cast<torch::nn::Module&>(*found.quantizer);
      made.train(root_.is_training());
      if (!parameters.empty()) {
        made.to(parameters.front().device());
      }
      auto* weighted = dynamic_cast<QuantWeightLayer*>(found.layer);
      if (weighted == nullptr) {
        continue;
      }
      const WeightQuantizerOptions weight = weight_options(found);
      weight.check("torchslim::quant::prepare: layer `" + found.name + "`");
      if (!weight.is_default()) {
        const auto own = weighted->weight_owner().named_parameters(/*recurse=*/false);
        found.weight_quantizer = WeightQuantizer(weight, own["weight"]);
      }
    }
  }

  void make_quantizer(Found& found) const {
    const LayerOptions& own = found.options;
    const Activation activation = found.layer->activation_;
    const char* name = activation == Activation::kRelu ? "relu" : activation == Activation::kRelu6 ? "relu6" : "none";
    const auto bits = first_of({own.activation_bits(), own.bits(), options_.activation_bits(), options_.bits()});
    TORCH_CHECK_VALUE(bits.value_or(8) <= 8, "torchslim::quant::prepare: layer `", found.name,
                      "`: activations have at most 8 bits, got ", bits.value_or(8));
    const std::string kind = own.activation_quantizer().value_or(options_.activation_quantizer());
    const bool learned = kind != "fake_quantize" && !(kind == "pact" && activation == Activation::kNone);
    if (learned) {
      found.learned =
          LearnedActivation(LearnedActivationOptions().quantizer(kind).bits(bits.value_or(8)).activation(name));
      return;
    }
    found.quantizer = FakeQuantize(FakeQuantizeOptions()
                                       .observer(own.observer().value_or(options_.observer()))
                                       .averaging_constant(options_.averaging_constant())
                                       .bits(bits.value_or(8))
                                       .symmetric(own.symmetric().value_or(options_.symmetric()))
                                       .activation(name));
  }

  WeightQuantizerOptions weight_options(const Found& found) const {
    const LayerOptions& own = found.options;
    auto weight = WeightQuantizerOptions()
                      .quantizer(own.weight_quantizer().value_or(options_.weight_quantizer()))
                      .bits(first_of({own.weight_bits(), own.bits()}));
    weight.scale_search(own.scale_search().value_or(own.weight_quantizer() ? "absmax" : options_.scale_search()));
    if (!weight.bits()) {
      weight.bits(first_of({options_.weight_bits(), options_.bits()}));
      if (weight.bits() && own.weight_quantizer() && !weight.takes(*weight.bits())) {
        weight.bits(std::nullopt);  // a wider setting that this quantiser cannot mean
      }
    }
    if (weight.bits() == 1 && !own.weight_quantizer() && options_.weight_quantizer() == "fake_quantize") {
      weight.quantizer("binary");
    }
    return weight;
  }

  static std::optional<int64_t> first_of(std::initializer_list<std::optional<int64_t>> choices) {
    for (const auto& choice : choices) {
      if (choice) {
        return choice;
      }
    }
    return std::nullopt;
  }

  void visit(torch::nn::Module& module, torch::nn::Module& owner, const std::string& name) {
    if (auto* layer = dynamic_cast<QuantLayer*>(&module)) {
      TORCH_CHECK_VALUE(!layer->is_prepared(), "torchslim::quant::prepare: layer `", name, "` is prepared already");
      check_padding(module, name);
      found_.push_back({layer, &owner, name, own_options(module, name)});
      return;
    }
    TORCH_CHECK_VALUE(module.parameters(/*recurse=*/false).empty(), "torchslim::quant::prepare: layer `", name, "`, a ",
                      module.name(), ", would stay in float; use the layers of quant/layers.h");
    for (const auto& child : module.named_children()) {
      visit(*child.value(), module, join(name, child.key()));
    }
  }

  LayerOptions own_options(torch::nn::Module& module, const std::string& name) {
    const std::string inner = module.as<ConvBnAct2dImpl>() == nullptr ? name : join(name, "conv");
    for (const std::string& key : {name, inner}) {
      if (const auto own = options_.layers().find(key); own != options_.layers().end()) {
        used_.insert(key);
        return own->second;
      }
    }
    return {};
  }

  void check_names() const {
    std::vector<std::string> names;
    for (const Found& found : found_) {
      names.push_back(found.name);
    }
    for (const auto& [name, own] : options_.layers()) {
      TORCH_CHECK_VALUE(used_.count(name) != 0, "torchslim::quant::prepare: there is no layer `", name,
                        "`; the layers are ", c10::Join(", ", names));
    }
  }

  static void check_padding(torch::nn::Module& module, const std::string& name) {
    const auto* layer = module.as<ConvBnAct2dImpl>();
    if (layer == nullptr) {
      return;
    }
    const auto& conv = layer->options.conv();
    const bool zeros = std::holds_alternative<torch::enumtype::kZeros>(conv.padding_mode());
    TORCH_CHECK_VALUE(zeros && std::holds_alternative<torch::ExpandingArray<2>>(conv.padding()),
                      "torchslim::quant::prepare: layer `", name,
                      "` must pad with zeros and by numbers; integer runtimes know no other padding");
  }

  torch::nn::Module& root_;
  const PrepareOptions& options_;
  std::vector<Found> found_;
  std::set<std::string> used_;  // names of options_.layers() that are layers
};

void InputImpl::add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) {
  register_quantizer(owner, "input_fake_quantize", quantizer);
}

void ConvBnAct2dImpl::add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) {
  conv->register_module("output_fake_quantize", quantizer);
}

void LinearImpl::add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) {
  register_module("output_fake_quantize", quantizer);
}

void AddImpl::add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) {
  register_quantizer(owner, "add_fake_quantize", quantizer);
}

void prepare(torch::nn::Module& module, const PrepareOptions& options) { Preparation(module, options).apply(); }

void enable_observer(torch::nn::Module& module) {
  for_each_quantizer(module, "enable_observer", [](auto& quantizer) { quantizer.enable_observer(); });
}

void disable_observer(torch::nn::Module& module) {
  for_each_quantizer(module, "disable_observer", [](auto& quantizer) { quantizer.enable_observer(false); });
}

void enable_fake_quant(torch::nn::Module& module) {
  for_each_quantizer(module, "enable_fake_quant", [](auto& quantizer) { quantizer.enable_fake_quant(); });
}

void disable_fake_quant(torch::nn::Module& module) {
  for_each_quantizer(module, "disable_fake_quant", [](auto& quantizer) { quantizer.enable_fake_quant(false); });
}

void update_qparams(torch::nn::Module& module) {
  for_each_quantizer(module, "update_qparams", [](auto& quantizer) {
    if constexpr (requires { quantizer.update_qparams(); }) {  // a learned grid follows from no range
      quantizer.update_qparams();
    }
  });
}

void freeze_batch_norm(torch::nn::Module& module, bool frozen) {
  bool found = false;
  module.apply([&](torch::nn::Module& child) {
    if (auto* layer = child.as<ConvBnAct2dImpl>()) {
      layer->freeze_batch_norm(frozen);
      found = true;
    }
  });
  TORCH_CHECK_VALUE(found, "torchslim::quant::freeze_batch_norm: the module holds no quant::ConvBnAct2d");
}

}  // namespace torchslim::quant
