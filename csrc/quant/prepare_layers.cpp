// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/isfinite.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/prepared_graph.h>
#include <torchslim/quant/summary.h>

#include <set>
#include <string>
#include <vector>

#include "quant/layer_settings.h"
#include "quant/place_quantizers.h"
#include "quant/quantization_config.h"

namespace torchslim::quant {
namespace {

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
    TORCH_CHECK_VALUE(options_.kinds().empty(),
                      "torchslim::quant::prepare: settings by kind are for prepare(model, example_inputs); name the "
                      "layers of a module of drop-in layers");
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
      found.layer->add_quantizer(*found.owner, found.made.module());
      found.layer->output_fake_quantize_ = found.made.following;
      found.layer->learned_activation_ = found.made.learned;
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
    detail::ActivationQuantizer made{};
    WeightQuantizer weight_quantizer{nullptr};  // empty: the int8 rule
  };

  // All before anything is changed, as each refuses options that make no sense.
  void make_quantizers() {
    const std::vector<at::Tensor> parameters = root_.parameters();
    for (Found& found : found_) {
      if (detail::stays_in_float(found.name, found.options)) {
        continue;
      }
      found.made = detail::make_activation_quantizer(found.name, found.options, options_, found.layer->activation_);
      torch::nn::Module& made = *found.made.module();
      made.train(root_.is_training());
      if (!parameters.empty()) {
        made.to(parameters.front().device());
      }
      if (auto* weighted = dynamic_cast<QuantWeightLayer*>(found.layer)) {
        found.weight_quantizer =
            detail::make_weight_quantizer(found.name, found.options, options_, weighted->own_weight());
      }
    }
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
      visit(*child.value(), module, detail::joined(name, child.key()));
    }
  }

  LayerOptions own_options(torch::nn::Module& module, const std::string& name) {
    const std::string inner = module.as<ConvBnAct2dImpl>() == nullptr ? name : detail::joined(name, "conv");
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

void MulImpl::add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) {
  register_quantizer(owner, "mul_fake_quantize", quantizer);
}

void ConcatImpl::add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) {
  register_quantizer(owner, "concat_fake_quantize", quantizer);
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
    } else if (auto* graph = child.as<PreparedGraphImpl>(); graph != nullptr && graph->has_batch_norm()) {
      graph->freeze_batch_norm(frozen);
      found = true;
    }
  });
  TORCH_CHECK_VALUE(found, "torchslim::quant::freeze_batch_norm: the module holds no batch norm of a prepared layer");
}

}  // namespace torchslim::quant
