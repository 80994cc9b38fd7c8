// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/clamp.h>
#include <c10/util/irange.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/prepared_graph.h>
#include <torchslim/quant/round_average.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "quant/graph_layers.h"
#include "quant/layer_settings.h"
#include "quant/place_quantizers.h"
#include "quant/quantization_config.h"
#include "quant/weighted_form.h"

namespace torchslim::quant {
namespace {

using graph::Node;
using graph::OpKind;

/// A module that does nothing but hold others.
struct Container : torch::nn::Module {
  Container() : torch::nn::Module("Container") {}
};

std::pair<std::string, std::string> split_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? std::pair(std::string(), name)
                                  : std::pair(name.substr(0, dot), name.substr(dot + 1));
}

// Dropouts, and batch norms that have no kind of their own: what they do depends on the mode.
Node in_mode(const Node& node, bool training) {
  if (!training || !node.call) {
    return node;
  }
  const std::string& op = node.call->op;
  const bool is_norm = op == "aten::batch_norm";
  if (!is_norm && op.find("dropout") == std::string::npos) {
    return node;
  }
  constexpr size_t kTrainOfDropout = 2, kTrainingOfNorm = 5;  // positions in the schemas
  Node result = node;
  result.call->arguments.at(is_norm ? kTrainingOfNorm : kTrainOfDropout) = true;
  return result;
}

}  // namespace

/// One node of the graph, and the modules that run it.
struct PreparedGraphImpl::Step {
  Node node;
  detail::PlacedNode placed;
  int64_t last_use = 0;  // the step after which nobody reads the result
  std::shared_ptr<GraphLayerImpl> layer;
  std::shared_ptr<GraphBatchNormImpl> batch_norm;
  std::shared_ptr<AddImpl> add;
  std::shared_ptr<MulImpl> mul;
  std::shared_ptr<GraphRounding> rounding;  // of a result on a grid of its own
  std::shared_ptr<GraphRounding> border;    // of a result in float

  QuantTensor run(const std::vector<QuantTensor>& inputs, bool training, int64_t batch);

 private:
  QuantTensor on_grid_of_input(const QuantTensor& x, const std::vector<at::Tensor>& values, bool training,
                               int64_t batch) const;
};

QuantTensor PreparedGraphImpl::Step::run(const std::vector<QuantTensor>& inputs, bool training, int64_t batch) {
  if (layer) {
    return layer->forward(inputs[0]);
  }
  if (add || mul) {
    return add ? add->forward(inputs[0], inputs[1]) : mul->forward(inputs[0], inputs[1]);
  }
  std::vector<at::Tensor> values;
  for (const QuantTensor& input : inputs) {
    values.push_back(input.value);
  }
  if (node.kind == OpKind::kInput) {
    return rounding ? rounding->forward(values[0]) : inputs[0];
  }
  if (batch_norm) {
    return batch_norm->forward(values[0]);
  }
  if (!placed.in_float && !rounding) {
    return on_grid_of_input(inputs[0], values, training, batch);
  }
  const at::Tensor value = graph::run_node(in_mode(node, training), values, batch);
  return rounding ? rounding->forward(value) : QuantTensor(value);
}

QuantTensor PreparedGraphImpl::Step::on_grid_of_input(const QuantTensor& x, const std::vector<at::Tensor>& values,
                                                      bool training, int64_t batch) const {
  QuantTensor result = x;
  const auto round = [&] { return fake_quantize(result.value, x.scale, x.zero_point, x.quant_min, x.quant_max); };
  result.value = graph::run_node(in_mode(node, training), values, batch);
  if (!x.rounded) {
    return result;
  }
  const bool pools = node.kind == OpKind::kAvgPool2d || node.kind == OpKind::kGlobalAvgPool;
  if (pools && !detail::is_tracing()) {
    const int64_t count = node.kind == OpKind::kAvgPool2d ? node.window.kernel[0] * node.window.kernel[1]
                                                          : values[0].size(2) * values[0].size(3);
    result.value = round_average(result.value, x.scale, count);
  } else if (pools || node.kind == OpKind::kRelu6) {  // 6 may lie between two points of the grid
    result.value = round();
  }
  return result;
}

/// Makes the modules of a prepared graph. Checks come first: nothing is shared before all of them have passed.
class PreparedGraphImpl::Builder {
 public:
  Builder(PreparedGraphImpl& root, const graph::Graph& graph, torch::nn::Module& module, const PrepareOptions& options)
      : root_(root), graph_(graph), options_(options) {
    const bool prepared = std::any_of(graph.nodes.begin(), graph.nodes.end(),
                                      [](const Node& node) { return node.kind == OpKind::kFakeQuantize; });
    TORCH_CHECK_VALUE(!prepared,
                      "torchslim::quant::prepare: the model holds quantisers already; prepare the float model");
    for (const auto& item : module.named_parameters()) {
      names_[item.value().unsafeGetTensorImpl()] = {item.key(), true};
    }
    for (const auto& item : module.named_buffers()) {
      names_[item.value().unsafeGetTensorImpl()] = {item.key(), false};
      buffers_[item.key()] = item.value();
    }
    placement_ = detail::place_quantizers(graph, leaf_layers(module), options);
    for (const auto& placed : placement_.quantizers) {
      quantizers_.push_back(
          detail::make_activation_quantizer(placed.layer, placed.options, options, placed.activation));
    }
  }

  void build() {
    make_steps();
    for (const auto& step : root_.steps_) {
      register_tensors(*step);
    }
    for (const auto& [path, module] : modules_) {
      ensure(path);
    }
    for (const auto i : c10::irange(quantizers_.size())) {
      const auto [parent, name] = split_name(placement_.quantizers[i].path);
      ensure(parent).register_module(name, quantizers_[i].module());
    }
    if (const auto parameters = root_.parameters(); !parameters.empty()) {
      for (const auto& made : quantizers_) {
        made.module()->to(parameters.front().device());
      }
    }
    root_.float_layers_ = placement_.float_layers;
    if (const at::Tensor config = detail::quantization_config(root_, root_.float_layers_); config.defined()) {
      root_.register_buffer(detail::kQuantizationConfig, config);
    }
  }

 private:
  struct Name {
    std::string name;
    bool is_parameter;
  };

  static std::set<std::string> leaf_layers(torch::nn::Module& module) {
    std::set<std::string> leaves;
    for (const auto& item : module.named_modules("", /*include_self=*/false)) {
      if (item.value()->children().empty() && item.value()->name().starts_with("torch::nn::")) {
        leaves.insert(item.key());
      }
    }
    return leaves;
  }

  void make_steps() {
    for (const auto i : c10::irange(graph_.nodes.size())) {
      auto step = std::make_unique<Step>();
      step->node = graph_.nodes[i];
      step->placed = placement_.nodes[i];
      step->last_use = i;
      for (const int64_t input : step->node.inputs) {
        root_.steps_[input]->last_use = static_cast<int64_t>(i);
      }
      root_.steps_.push_back(std::move(step));
    }
    for (const auto& step : root_.steps_) {
      make_modules(*step);
    }
    for (const auto& step : root_.steps_) {  // a result is that of the last node that is part of the step
      const int64_t last = step->placed.last;
      step->last_use = std::max(step->last_use, root_.steps_[last]->last_use);
    }
  }

  void make_modules(Step& step) {
    if (step.placed.absorbed) {
      return;
    }
    if (step.placed.border >= 0) {
      step.border = std::make_shared<GraphRounding>();
      give(*step.border, step.placed.border);
    }
    if (step.node.kind == OpKind::kBatchNorm2d) {
      step.batch_norm = make_batch_norm(step.node, step.placed.layer);
    }
    if (!step.placed.owns_grid) {
      return;
    }
    const std::string& kind = step.placed.kind;
    if (kind == "conv" || kind == "linear" || kind == "batch_norm") {
      make_layer(step);
    } else if (step.node.kind == OpKind::kAdd) {
      step.add = std::make_shared<AddImpl>(step.placed.activation);
      give(*step.add, step.placed.grid);
    } else if (step.node.kind == OpKind::kMul) {
      step.mul = std::make_shared<MulImpl>(step.placed.activation);
      give(*step.mul, step.placed.grid);
    } else {
      step.rounding = std::make_shared<GraphRounding>();
      give(*step.rounding, step.placed.grid);
    }
  }

  void make_layer(Step& step) {
    std::shared_ptr<GraphBatchNormImpl> norm = step.batch_norm;
    if (step.placed.batch_norm >= 0) {
      const Step& after = *root_.steps_[step.placed.batch_norm];
      norm = make_batch_norm(after.node, after.placed.layer);
    }
    step.layer = std::make_shared<GraphLayerImpl>(step.node, norm, step.placed.activation);
    step.batch_norm.reset();
    give(*step.layer, step.placed.grid);
    step.layer->layer_name_ = step.placed.layer;
    const std::string path = step.placed.kind == "batch_norm" ? step.placed.layer + "_layer" : step.placed.layer;
    modules_.emplace(path, step.layer);
    if (step.placed.kind == "batch_norm") {
      return;
    }
    const WeightQuantizer weight = detail::make_weight_quantizer(
        step.placed.layer, placement_.quantizers[step.placed.grid].options, options_, step.layer->weight());
    if (!weight.is_empty()) {
      step.layer->set_weight_quantizer(weight);
    }
  }

  std::shared_ptr<GraphBatchNormImpl> make_batch_norm(const Node& node, const std::string& layer) {
    const auto tracked = buffers_.find(detail::joined(node.layer, "num_batches_tracked"));
    const bool is_first = layer == node.layer;  // what is used again has its parameters elsewhere
    auto norm = std::make_shared<GraphBatchNormImpl>(node, tracked == buffers_.end() ? at::Tensor() : tracked->second,
                                                     is_first);
    modules_.emplace(layer, norm);
    return norm;
  }

  void give(QuantLayer& layer, int64_t quantizer) {
    layer.output_fake_quantize_ = quantizers_[quantizer].following;
    layer.learned_activation_ = quantizers_[quantizer].learned;
    layer.layer_name_ = placement_.quantizers[quantizer].layer;
  }

  void register_tensors(const Step& step) {
    if (step.node.kind == OpKind::kBatchNorm2d) {
      return;  // its module has them
    }
    register_tensor(step.node.weight.value);
    register_tensor(step.node.bias.value);
    if (step.node.call) {
      for (const c10::IValue& argument : step.node.call->arguments) {
        if (argument.isTensor()) {
          register_tensor(argument.toTensor());
        }
      }
    }
  }

  void register_tensor(const at::Tensor& tensor) {
    const auto found = tensor.defined() ? names_.find(tensor.unsafeGetTensorImpl()) : names_.end();
    if (found == names_.end() || !registered_.insert(found->second.name).second) {
      return;
    }
    const auto [parent, name] = split_name(found->second.name);
    if (found->second.is_parameter) {
      ensure(parent).register_parameter(name, tensor, tensor.requires_grad());
    } else {
      ensure(parent).register_buffer(name, tensor);
    }
  }

  // The module at a dotted name, made where there is none.
  torch::nn::Module& ensure(const std::string& path) {
    if (path.empty()) {
      return root_;
    }
    if (const auto found = placed_.find(path); found != placed_.end()) {
      return *found->second;
    }
    const auto special = modules_.find(path);
    std::shared_ptr<torch::nn::Module> module =
        special == modules_.end() ? std::make_shared<Container>() : special->second;
    const auto [parent, name] = split_name(path);
    ensure(parent).register_module(name, module);
    placed_.emplace(path, module);
    return *module;
  }

  PreparedGraphImpl& root_;
  const graph::Graph& graph_;
  const PrepareOptions& options_;
  std::unordered_map<const c10::TensorImpl*, Name> names_;
  std::map<std::string, at::Tensor> buffers_;
  detail::Placement placement_;
  std::vector<detail::ActivationQuantizer> quantizers_;
  std::map<std::string, std::shared_ptr<torch::nn::Module>> modules_;  // that are more than containers
  std::map<std::string, std::shared_ptr<torch::nn::Module>> placed_;
  std::set<std::string> registered_;
};

PreparedGraphImpl::PreparedGraphImpl(const graph::Graph& graph, torch::nn::Module& module,
                                     const PrepareOptions& options)
    : torch::nn::Module("PreparedGraph") {
  Builder(*this, graph, module, options).build();
  train(module.is_training());
}

PreparedGraphImpl::~PreparedGraphImpl() = default;

at::Tensor PreparedGraphImpl::forward(const at::Tensor& x) {
  const at::IntArrayRef expected(steps_[0]->node.shape);
  TORCH_CHECK_VALUE(x.dim() == static_cast<int64_t>(expected.size()) && x.sizes().slice(1) == expected.slice(1),
                    "torchslim::quant::PreparedGraph: expected an input (N, ...) as captured with ", expected, ", got ",
                    x.sizes());
  const auto count = static_cast<int64_t>(steps_.size());
  const int64_t batch = x.size(0);
  std::vector<QuantTensor> values(steps_.size());
  std::vector<QuantTensor> rounded(steps_.size());  // those in float, for who reads them on a grid
  for (const auto i : c10::irange(count)) {
    Step& step = *steps_[i];
    if (step.placed.absorbed) {
      continue;
    }
    std::vector<QuantTensor> inputs;
    for (const int64_t input : step.node.inputs) {
      if (steps_[input]->border && !step.placed.in_float) {
        if (!rounded[input].value.defined()) {
          rounded[input] = steps_[input]->border->forward(values[input].value);
        }
        inputs.push_back(rounded[input]);
      } else {
        inputs.push_back(values[input]);
      }
    }
    if (i == 0) {
      inputs.emplace_back(x);
    }
    values[step.placed.last] = step.run(inputs, is_training(), batch);
    for (const int64_t input : step.node.inputs) {
      if (steps_[input]->last_use <= i && input + 1 < count) {
        values[input] = rounded[input] = {};
      }
    }
  }
  return values.back().value;
}

void PreparedGraphImpl::train(bool on) {
  Module::train(on);
  if (batch_norm_frozen_) {
    apply([](torch::nn::Module& child) {
      if (child.as<GraphBatchNormImpl>() != nullptr) {
        child.eval();
      }
    });
  }
}

void PreparedGraphImpl::freeze_batch_norm(bool frozen) {
  batch_norm_frozen_ = frozen;
  train(is_training());
}

bool PreparedGraphImpl::has_batch_norm() const {
  const auto all = modules();
  return std::any_of(all.begin(), all.end(),
                     [](const auto& child) { return child->template as<GraphBatchNormImpl>() != nullptr; });
}

void PreparedGraphImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::PreparedGraph(" << steps_.size() << " operations)";
}

PreparedGraph prepare(torch::nn::Module& module, const std::function<at::Tensor(at::Tensor)>& forward,
                      const at::Tensor& example_inputs, const PrepareOptions& options) {
  const graph::Graph graph =
      graph::capture(module, forward, example_inputs, graph::CaptureOptions().keep_dropout(true));
  return PreparedGraph(std::make_shared<PreparedGraphImpl>(graph, module, options));
}

}  // namespace torchslim::quant
