// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/nn/module.h>
#include <torchslim/graph/capture.h>

#include "graph/importer.h"

namespace torchslim::graph {
namespace {

using detail::Importer;
using Forward = std::function<at::Tensor(at::Tensor)>;

void check_example(const at::Tensor& example) {
  TORCH_CHECK_VALUE(example.defined(),
                    "torchslim::graph::capture: expected an example batch, got an "
                    "undefined tensor");
  TORCH_CHECK_TYPE(example.scalar_type() == at::kFloat, "torchslim::graph::capture: expected a float32 example, got ",
                   example.scalar_type());
  TORCH_CHECK_VALUE(example.dim() >= 2 && example.numel() > 0,
                    "torchslim::graph::capture: expected an example batch (N, ...) that is not "
                    "empty, got shape ",
                    example.sizes());
}

// The module's tree as a TorchScript module with the same tensors: passed to the tracer as `self`, it turns every
// use of a parameter into a chain of attribute names.
torch::jit::Module mirror(const torch::nn::Module& module, const std::string& class_name,
                          const std::shared_ptr<torch::jit::CompilationUnit>& unit) {
  torch::jit::Module result(c10::QualifiedName(class_name), unit);
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    result.register_parameter(parameter.key(), parameter.value(), /*is_buffer=*/false);
  }
  for (const auto& buffer : module.named_buffers(/*recurse=*/false)) {
    result.register_buffer(buffer.key(), buffer.value());
  }
  for (const auto& child : module.named_children()) {
    result.register_module(child.key(), mirror(*child.value(), class_name + "_" + child.key(), unit));
  }
  return result;
}

// Puts the module into eval mode and back, each submodule into the mode that it had.
class EvalMode {
 public:
  explicit EvalMode(torch::nn::Module& module) : root_(module), was_training_(module.is_training()) {
    for (const auto& child : root_.named_modules("", /*include_self=*/false)) {
      modes_.emplace_back(child.value(), child.value()->is_training());
    }
    root_.eval();
  }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;
  ~EvalMode() {
    // train() sets the children too, and the list has parents before their children.
    root_.train(was_training_);
    for (const auto& [module, training] : modes_) {
      module->train(training);
    }
  }

 private:
  torch::nn::Module& root_;
  bool was_training_;
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> modes_;
};

torch::jit::Module traced(const torch::nn::Module& module, const Forward& forward, const at::Tensor& example) {
  const auto unit = std::make_shared<torch::jit::CompilationUnit>();
  torch::jit::Module result = mirror(module, "__torch__.captured", unit);
  const auto run = [&forward](torch::jit::Stack inputs) -> torch::jit::Stack {
    return {forward(inputs.at(0).toTensor())};
  };
  const auto no_name = [](const at::Tensor&) -> std::string { return ""; };
  // A copy: forward may start with an operation in place.
  const auto state = torch::jit::tracer::trace({example.clone()}, run, no_name, /*strict=*/true,
                                               /*force_outplace=*/false, &result)
                         .first;
  const auto function = unit->create_function(c10::QualifiedName(*result.type()->name(), "forward"), state->graph);
  result.type()->addMethod(function);
  return result;
}

// The same operations on the same tensors, whatever the batch.
bool same_but_for_batch(const Graph& left, const Graph& right) {
  if (left.nodes.size() != right.nodes.size()) {
    return false;
  }
  for (size_t i = 0; i < left.nodes.size(); ++i) {
    const Node& a = left.nodes[i];
    const Node& b = right.nodes[i];
    const at::IntArrayRef shape_a(a.shape);
    const at::IntArrayRef shape_b(b.shape);
    if (a.kind != b.kind || a.inputs != b.inputs || a.weight.name != b.weight.name ||
        shape_a.slice(1) != shape_b.slice(1)) {
      return false;
    }
  }
  return true;
}

}  // namespace

Graph capture(const torch::jit::Module& traced_module, const at::Tensor& example) {
  check_example(example);
  const at::NoGradGuard no_grad;
  return Importer(traced_module, example, /*accept_baked_batch=*/false).run();
}

Graph capture(torch::nn::Module& module, const std::function<at::Tensor(at::Tensor)>& forward,
              const at::Tensor& example) {
  check_example(example);
  const at::NoGradGuard no_grad;
  const EvalMode eval(module);
  const at::Tensor batch = example.detach();
  Importer importer(traced(module, forward, batch), batch, /*accept_baked_batch=*/true);
  Graph graph = importer.run();
  if (importer.baked_batch()) {
    // C++ writes x.size(0) into the trace as a number. If a larger batch gives the larger number and the same
    // graph, it follows the batch.
    const at::Tensor larger = at::cat({batch, batch.slice(0, 0, 1)});
    Importer again(traced(module, forward, larger), larger, /*accept_baked_batch=*/true);
    TORCH_CHECK_VALUE(same_but_for_batch(graph, again.run()),
                      "torchslim::graph::capture: forward does something else for a batch of ", larger.size(0),
                      " than for ", batch.size(0), "; use flatten(1) for a view");
  }
  return graph;
}

}  // namespace torchslim::graph
