// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/record_function.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/nn/module.h>
#include <torchslim/graph/capture.h>

#include <algorithm>

#include "core/eval_mode.h"
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

// Whether `value` is computed from the traced input, and not from parameters and buffers alone.
bool depends_on_input(const torch::jit::Value* value) {
  const torch::jit::Node* node = value->node();
  if (node->kind() == c10::prim::Param) {
    return value != node->owningGraph()->inputs()[0];  // the first is `self`
  }
  const auto inputs = node->inputs();
  return std::any_of(inputs.begin(), inputs.end(), depends_on_input);
}

// Notices when forward reads a number out of a tensor that depends on the input: what C++ decides by it is not in
// the trace, and the reading itself leaves no node.
class ReadingWatch {
 public:
  ReadingWatch() {
    operation.clear();
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&look).needsInputs(true));
  }
  ReadingWatch(const ReadingWatch&) = delete;
  ReadingWatch& operator=(const ReadingWatch&) = delete;
  ~ReadingWatch() { at::removeCallback(handle_); }

  static void check() {
    TORCH_CHECK_VALUE(operation.empty(), "torchslim::graph::capture: forward reads a value that depends on its input (",
                      operation,
                      "), and a trace cannot hold what it decides by it; keep decisions on values out of "
                      "forward");
  }

 private:
  static std::unique_ptr<at::ObserverContext> look(const at::RecordFunction& call) {
    const std::string name = call.name();
    const auto& state = torch::jit::tracer::getTracingState();
    if (state && (name == "aten::item" || name == "aten::_local_scalar_dense" || name == "aten::is_nonzero" ||
                  name == "aten::equal")) {
      for (const c10::IValue& input : call.inputs()) {
        if (input.isTensor() && state->hasValue(input) && depends_on_input(state->getValue(input))) {
          operation = name;
        }
      }
    }
    return nullptr;
  }

  static thread_local std::string operation;
  at::CallbackHandle handle_ = 0;
};
thread_local std::string ReadingWatch::operation;

torch::jit::Module traced(const torch::nn::Module& module, const Forward& forward, const at::Tensor& example) {
  const auto unit = std::make_shared<torch::jit::CompilationUnit>();
  torch::jit::Module result = mirror(module, "__torch__.captured", unit);
  const auto run = [&forward](torch::jit::Stack inputs) -> torch::jit::Stack {
    return {forward(inputs.at(0).toTensor())};
  };
  const auto no_name = [](const at::Tensor&) -> std::string { return ""; };
  const ReadingWatch watch;
  // A copy: forward may start with an operation in place.
  const auto state = torch::jit::tracer::trace({example.clone()}, run, no_name, /*strict=*/true,
                                               /*force_outplace=*/false, &result)
                         .first;
  ReadingWatch::check();
  const auto function = unit->create_function(c10::QualifiedName(*result.type()->name(), "forward"), state->graph);
  result.type()->addMethod(function);
  return result;
}

// The same operations on the same tensors, whatever the batch.
bool same_but_for_batch(const Graph& left, const Graph& right) {
  if (left.nodes.size() != right.nodes.size()) {
    return false;
  }
  // Sizes are equal, or as many times the batch.
  const auto same_or_batch = [&](int64_t a, int64_t b) {
    return a == b || a * right.nodes[0].shape[0] == b * left.nodes[0].shape[0];
  };
  for (size_t i = 0; i < left.nodes.size(); ++i) {
    const Node& a = left.nodes[i];
    const Node& b = right.nodes[i];
    if (a.kind != b.kind || a.inputs != b.inputs || a.weight.name != b.weight.name ||
        !std::equal(a.shape.begin(), a.shape.end(), b.shape.begin(), b.shape.end(), same_or_batch)) {
      return false;
    }
  }
  return true;
}

}  // namespace

Graph capture(const torch::jit::Module& traced_module, const at::Tensor& example, const CaptureOptions& options) {
  check_example(example);
  const at::NoGradGuard no_grad;
  return Importer(traced_module, example, /*accept_baked_batch=*/false, options).run();
}

Graph capture(torch::nn::Module& module, const std::function<at::Tensor(at::Tensor)>& forward,
              const at::Tensor& example, const CaptureOptions& options) {
  check_example(example);
  const at::NoGradGuard no_grad;
  const core::EvalMode eval(module);
  const at::Tensor batch = example.detach();
  Importer importer(traced(module, forward, batch), batch, /*accept_baked_batch=*/true, options);
  Graph graph = importer.run();
  if (importer.baked_batch()) {
    // C++ writes x.size(0) into the trace as a number. If a larger batch gives the larger number and the same
    // graph, it follows the batch.
    const at::Tensor larger = at::cat({batch, batch.slice(0, 0, 1)});
    Importer again(traced(module, forward, larger), larger, /*accept_baked_batch=*/true, options);
    TORCH_CHECK_VALUE(same_but_for_batch(graph, again.run()),
                      "torchslim::graph::capture: forward does something else for a batch of ", larger.size(0),
                      " than for ", batch.size(0), "; use flatten(1) for a view");
  }
  return graph;
}

}  // namespace torchslim::graph
