// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/stack.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/add.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose1d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/graph/transposed_weight.h>

#include "graph/fake_quantize.h"

namespace torchslim::graph {

at::Tensor fake_quantized(const at::Tensor& x, const std::optional<Grid>& grid) {
  if (!grid) {
    return x;
  }
  using Op =
      at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t, std::optional<int64_t>);
  // By name: this room knows the op, not the room that implements it.
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("torchslim::fake_quantize", "tensor_qparams").typed<Op>();
  return op.call(x, grid->scale, grid->zero_point, grid->quant_min, grid->quant_max, grid->axis);
}

at::Tensor fake_quantized_weight(const Node& node) {
  if (!node.weight_grid || !is_transposed(node.kind)) {
    return fake_quantized(node.weight.value, node.weight_grid);
  }
  return transposed_weight(fake_quantized(weight_by_outputs(node), node.weight_grid), node.window.groups);
}

namespace {

at::Tensor run_call(const AtenCall& call, const std::vector<at::Tensor>& inputs, int64_t batch) {
  torch::jit::Stack stack = call.arguments;
  for (const auto& [argument, element] : call.batch_sizes) {
    if (stack[argument].isIntList()) {
      auto sizes = stack[argument].toIntVector();
      sizes[element] = batch;
      stack[argument] = std::move(sizes);
    } else {
      stack[argument] = batch;
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    stack[call.slots[i]] = inputs[i];
  }
  c10::Dispatcher::singleton().findSchemaOrThrow(call.op.c_str(), call.overload.c_str()).callBoxed(stack);
  return stack.at(0).toTensor();
}

}  // namespace

at::Tensor run_node(const Node& node, const std::vector<at::Tensor>& inputs, int64_t batch) {
  const at::Tensor& x = inputs.at(0);
  const Window& window = node.window;
  switch (node.kind) {
    case OpKind::kInput:
      break;
    case OpKind::kConv2d:
      return at::conv2d(x, fake_quantized_weight(node), node.bias.value, window.stride, window.padding, window.dilation,
                        window.groups);
    case OpKind::kConv1d:
      return at::conv1d(x, fake_quantized_weight(node), node.bias.value, window.stride[1], window.padding[1],
                        window.dilation[1], window.groups);
    case OpKind::kConvTranspose2d:
      return at::conv_transpose2d(x, fake_quantized_weight(node), node.bias.value, window.stride, window.padding,
                                  window.output_padding, window.groups, window.dilation);
    case OpKind::kConvTranspose1d:
      return at::conv_transpose1d(x, fake_quantized_weight(node), node.bias.value, window.stride[1], window.padding[1],
                                  window.output_padding[1], window.groups, window.dilation[1]);
    case OpKind::kLinear:
      return at::linear(x, fake_quantized_weight(node), node.bias.value);
    case OpKind::kBatchNorm2d:
      return at::batch_norm(x, node.weight.value, node.bias.value, node.running_mean.value, node.running_var.value,
                            /*training=*/false, /*momentum=*/0, node.eps,
                            /*cudnn_enabled=*/true);
    case OpKind::kRelu:
      return at::relu(x);
    case OpKind::kRelu6:
      return at::clamp(x, 0, 6);
    case OpKind::kAdd:
      return at::add(x, inputs.at(1));
    case OpKind::kMul:
      return at::mul(x, inputs.at(1));
    case OpKind::kConcat:
      return at::cat(inputs, node.dim);
    case OpKind::kAten:
      return run_call(*node.call, inputs, batch);
    case OpKind::kMaxPool2d:
      return at::max_pool2d(x, window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode);
    case OpKind::kAvgPool2d:
      return at::avg_pool2d(x, window.kernel, window.stride, window.padding, window.ceil_mode,
                            window.count_include_pad);
    case OpKind::kGlobalAvgPool:
      return at::adaptive_avg_pool2d(x, {1, 1});
    case OpKind::kFlatten:
      return x.flatten(1);
    case OpKind::kFakeQuantize:
      return fake_quantized(x, node.grid);
  }
  TORCH_CHECK_VALUE(false, "torchslim::graph::run_float: a node of kind ", to_string(node.kind), " cannot stand here");
}

at::Tensor run_float(const Graph& graph, const at::Tensor& input) {
  TORCH_CHECK_VALUE(!graph.nodes.empty(), "torchslim::graph::run_float: the graph has no nodes");
  const at::IntArrayRef expected(graph.nodes[0].shape);
  TORCH_CHECK_VALUE(input.dim() == static_cast<int64_t>(expected.size()) && input.sizes().slice(1) == expected.slice(1),
                    "torchslim::graph::run_float: expected an input (N, ...) as captured with ", expected, ", got ",
                    input.sizes());
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> values(graph.nodes.size());
  std::vector<size_t> last_use(graph.nodes.size());
  for (size_t i = 1; i < graph.nodes.size(); ++i) {
    for (const int64_t index : graph.nodes[i].inputs) {
      last_use[index] = i;
    }
  }
  values[0] = input;
  for (size_t i = 1; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    std::vector<at::Tensor> inputs;
    for (const int64_t index : node.inputs) {
      inputs.push_back(values.at(index));
    }
    values[i] = run_node(node, inputs, input.size(0));
    for (const int64_t index : node.inputs) {
      if (last_use[index] == i) {
        values[index].reset();
      }
    }
  }
  return values.back();
}

}  // namespace torchslim::graph
