// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/isfinite.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/layers.h>

#include <vector>

namespace torchslim::quant {
namespace {

std::string join(const std::string& parent, const std::string& name) {
  return parent.empty() ? name : parent + "." + name;
}

/// Registers `quantizer` with `owner` as `name`, or as the first free of name_1, name_2, ..., as Python does.
void register_quantizer(torch::nn::Module& owner, const std::string& name, const FakeQuantize& quantizer) {
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
    }
  });
  TORCH_CHECK_VALUE(found, "torchslim::quant::", who, ": the module holds no quantiser; call quant::prepare first");
}

}  // namespace

/// One call of `prepare`: finds and checks the layers first, then changes them.
class Preparation {
 public:
  Preparation(torch::nn::Module& root, const PrepareOptions& options) : root_(root), options_(options) {
    quantizer_for(Activation::kNone);  // refuses wrong options
    visit(root, root, "");
    TORCH_CHECK_VALUE(!found_.empty(),
                      "torchslim::quant::prepare: the module holds none of the layers of "
                      "quant/layers.h, such as quant::ConvBnAct2d");
    for (const auto& item : root.named_parameters()) {
      check_tensor(item.key(), item.value());
    }
    for (const auto& item : root.named_buffers()) {
      check_tensor(item.key(), item.value());
    }
  }

  void apply() {
    const std::vector<at::Tensor> parameters = root_.parameters();
    for (const Found& found : found_) {
      FakeQuantize quantizer = quantizer_for(found.layer->activation_);
      quantizer->train(root_.is_training());
      if (!parameters.empty()) {
        quantizer->to(parameters.front().device());
      }
      found.layer->layer_name_ = found.name;
      found.layer->add_quantizer(*found.owner, quantizer);
      found.layer->output_fake_quantize_ = quantizer;
    }
  }

 private:
  struct Found {
    QuantLayer* layer;
    torch::nn::Module* owner;  // the module that holds it
    std::string name;
  };

  FakeQuantize quantizer_for(Activation activation) const {
    const char* name = activation == Activation::kRelu ? "relu" : activation == Activation::kRelu6 ? "relu6" : "none";
    return FakeQuantize(FakeQuantizeOptions()
                            .observer(options_.observer())
                            .averaging_constant(options_.averaging_constant())
                            .activation(name));
  }

  void visit(torch::nn::Module& module, torch::nn::Module& owner, const std::string& name) {
    if (auto* layer = dynamic_cast<QuantLayer*>(&module)) {
      TORCH_CHECK_VALUE(!layer->is_prepared(), "torchslim::quant::prepare: layer `", name, "` is prepared already");
      check_padding(module, name);
      found_.push_back({layer, &owner, name});
      return;
    }
    TORCH_CHECK_VALUE(module.parameters(/*recurse=*/false).empty(), "torchslim::quant::prepare: layer `", name, "`, a ",
                      module.name(), ", would stay in float; use the layers of quant/layers.h");
    for (const auto& child : module.named_children()) {
      visit(*child.value(), module, join(name, child.key()));
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
};

void InputImpl::add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) {
  register_quantizer(owner, "input_fake_quantize", quantizer);
}

void ConvBnAct2dImpl::add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) {
  conv->register_module("output_fake_quantize", quantizer);
}

void LinearImpl::add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) {
  register_module("output_fake_quantize", quantizer);
}

void AddImpl::add_quantizer(torch::nn::Module& owner, const FakeQuantize& quantizer) {
  register_quantizer(owner, "add_fake_quantize", quantizer);
}

void prepare(torch::nn::Module& module, const PrepareOptions& options) { Preparation(module, options).apply(); }

void enable_observer(torch::nn::Module& module) {
  for_each_quantizer(module, "enable_observer", [](FakeQuantizeImpl& quantizer) { quantizer.enable_observer(); });
}

void disable_observer(torch::nn::Module& module) {
  for_each_quantizer(module, "disable_observer", [](FakeQuantizeImpl& quantizer) { quantizer.disable_observer(); });
}

void enable_fake_quant(torch::nn::Module& module) {
  for_each_quantizer(module, "enable_fake_quant", [](FakeQuantizeImpl& quantizer) { quantizer.enable_fake_quant(); });
}

void disable_fake_quant(torch::nn::Module& module) {
  for_each_quantizer(module, "disable_fake_quant", [](FakeQuantizeImpl& quantizer) { quantizer.disable_fake_quant(); });
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
