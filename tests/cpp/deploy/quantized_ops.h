// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/torch.h>
#include <torchslim/deploy/integer_graph.h>

#include "deploy/runtime_guards.h"

// The peer of the integer reference: one integer node through LibTorch's quantised operators, engine QNNPACK.
namespace quantized_ops {

using torchslim::deploy::IntegerGraph;
using torchslim::deploy::IntegerNode;
using torchslim::deploy::IntegerOp;

inline at::Tensor quantised(const at::Tensor& codes, const IntegerNode& node) {
  return at::_make_per_tensor_quantized_tensor((codes.to(torch::kInt) + 128).to(torch::kByte), node.scale,
                                               node.zero_point + 128);
}

inline at::Tensor call(const char* name, torch::jit::Stack stack) {
  c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, std::string(name).find("conv2d") == std::string::npos ? "" : "new")
      .callBoxed(stack);
  return stack.at(0).toTensor();
}

inline c10::IValue pack(const char* name, torch::jit::Stack stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
  return stack.at(0);
}

inline c10::List<int64_t> list(const std::array<int64_t, 2>& pair) { return c10::List<int64_t>({pair[0], pair[1]}); }

inline at::Tensor run(const IntegerNode& node, const std::vector<at::Tensor>& x) {
  const double scale = node.scale;
  const int64_t zero_point = node.zero_point + 128;
  const auto& w = node.window;
  const bool relu = node.clamp_min > -128;
  const auto weight = [&] {
    return at::_make_per_channel_quantized_tensor(node.codes, node.weight_scale.to(torch::kDouble),
                                                  torch::zeros({node.weight_scale.numel()}, torch::kLong), 0);
  };
  switch (node.op) {
    case IntegerOp::kConv2d:
      return call(relu ? "quantized::conv2d_relu" : "quantized::conv2d",
                  {x[0],
                   pack("quantized::conv2d_prepack",
                        {weight(), node.bias, list(w.stride), list(w.padding), list(w.dilation), w.groups}),
                   scale, zero_point});
    case IntegerOp::kLinear:
      return call(relu ? "quantized::linear_relu" : "quantized::linear",
                  {x[0], pack("quantized::linear_prepack", {weight(), node.bias}), scale, zero_point});
    case IntegerOp::kAdd:
      return call(relu ? "quantized::add_relu" : "quantized::add", {x[0], x[1], scale, zero_point});
    case IntegerOp::kMaxPool2d:
      return at::max_pool2d(x[0], w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode);
    case IntegerOp::kAvgPool2d:
      return at::avg_pool2d(x[0], w.kernel, w.stride, w.padding);
    case IntegerOp::kGlobalAvgPool:
      return at::adaptive_avg_pool2d(x[0], {1, 1});
    case IntegerOp::kFlatten:
      return x[0].flatten(1);
    default:
      return x[0];
  }
}

/// Returns how many codes of node `i` the quantised operator gives otherwise, for the same input codes. `codes` is what
/// run_integer_nodes returned.
inline int64_t differences(const IntegerGraph& graph, size_t i, const std::vector<at::Tensor>& codes) {
  const torchslim::deploy::QnnpackGuard engine;
  const torchslim::deploy::QuietQuantizedTensors quiet;
  const IntegerNode& node = graph.nodes[i];
  std::vector<at::Tensor> inputs;
  for (const int64_t input : node.inputs) {
    inputs.push_back(quantised(codes[input], graph.nodes[input]));
  }
  const at::Tensor theirs = run(node, inputs).int_repr().to(torch::kInt) - 128;
  // ReLU6's upper bound is an operator of its own in files.
  return theirs.clamp_max(node.clamp_max).ne(codes[i].to(torch::kInt)).sum().item<int64_t>();
}

}  // namespace quantized_ops
