// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/float_operations.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>

#include <algorithm>
#include <array>
#include <limits>
#include <set>

namespace torchslim::deploy {
namespace {

using graph::Node;
using graph::OpKind;

constexpr int64_t kAlignment = 16;  // floats: a cache line, where kernels like their weights to begin

int64_t padded(int64_t numel) { return (numel + kAlignment - 1) / kAlignment * kAlignment; }

bool is_stored(const c10::IValue& value) { return value.isTensor() && value.toTensor().scalar_type() == at::kFloat; }

int64_t storage_size(const std::vector<const Node*>& nodes) {
  int64_t size = 0;
  std::set<const c10::TensorImpl*> seen;
  const auto add = [&](const at::Tensor& tensor) {
    size += seen.insert(tensor.unsafeGetTensorImpl()).second ? padded(tensor.numel()) : 0;
  };
  for (const Node* node : nodes) {
    for (const graph::NamedTensor* tensor : {&node->weight, &node->bias}) {
      if (tensor->defined()) {
        add(tensor->value);
      }
    }
    for (const c10::IValue& argument : node->call ? node->call->arguments : std::vector<c10::IValue>()) {
      if (is_stored(argument)) {
        add(argument.toTensor());
      }
    }
  }
  return size;
}

std::vector<int64_t> list(const std::array<int64_t, 2>& pair) { return {pair[0], pair[1]}; }

std::vector<int64_t> width(const std::array<int64_t, 2>& pair) { return {pair[1]}; }

}  // namespace

FloatOperations::FloatOperations(TorchScriptBuilder& builder, const std::vector<const Node*>& nodes)
    : builder_(builder), storage_(storage_size(nodes), at::kFloat) {}

FloatOperations::Value* FloatOperations::write(const Node& node, const std::vector<Value*>& inputs) {
  const graph::Window& w = node.window;
  switch (node.kind) {
    case OpKind::kConv2d: {
      Value* weight = stored(node.weight.value);
      return builder_.call("aten::conv2d", inputs[0], weight, bias(node), list(w.stride), list(w.padding),
                           list(w.dilation), w.groups);
    }
    case OpKind::kConv1d: {
      Value* weight = stored(node.weight.value);
      return builder_.call("aten::conv1d", inputs[0], weight, bias(node), width(w.stride), width(w.padding),
                           width(w.dilation), w.groups);
    }
    case OpKind::kConvTranspose1d: {
      Value* weight = stored(node.weight.value);
      return builder_.call("aten::conv_transpose1d", inputs[0], weight, bias(node), width(w.stride), width(w.padding),
                           width(w.output_padding), w.groups, width(w.dilation));
    }
    case OpKind::kConvTranspose2d: {
      Value* weight = stored(node.weight.value);
      return builder_.call("aten::conv_transpose2d", inputs[0], weight, bias(node), list(w.stride), list(w.padding),
                           list(w.output_padding), w.groups, list(w.dilation));
    }
    case OpKind::kLinear: {
      Value* weight = stored(node.weight.value);
      return builder_.call("aten::linear", inputs[0], weight, bias(node));
    }
    case OpKind::kRelu:
      return builder_.call("aten::relu", inputs[0]);
    case OpKind::kRelu6:
      return builder_.call("aten::hardtanh", inputs[0], 0.0, 6.0);
    case OpKind::kAdd:
      return builder_.call("aten::add", inputs[0], inputs[1]);
    case OpKind::kMul:
      return builder_.call("aten::mul", inputs[0], inputs[1]);
    case OpKind::kConcat:
      return builder_.call("aten::cat", builder_.list(inputs), node.dim);
    case OpKind::kMaxPool2d:
      return builder_.call("aten::max_pool2d", inputs[0], list(w.kernel), list(w.stride), list(w.padding),
                           list(w.dilation), w.ceil_mode);
    case OpKind::kAvgPool2d:
      return builder_.call("aten::avg_pool2d", inputs[0], list(w.kernel), list(w.stride), list(w.padding), w.ceil_mode,
                           w.count_include_pad, c10::IValue());
    case OpKind::kGlobalAvgPool:
      return builder_.call("aten::adaptive_avg_pool2d", inputs[0], std::vector<int64_t>{1, 1});
    case OpKind::kFlatten:
      return builder_.call("aten::flatten", inputs[0], int64_t{1}, int64_t{-1});
    case OpKind::kAten:
      return write_call(*node.call, inputs);
    case OpKind::kInput:
    case OpKind::kBatchNorm2d:
    case OpKind::kFakeQuantize:
      break;
  }
  TORCH_CHECK_VALUE(false, "torchslim::save_ptl: layer '", node.layer, "': a ", graph::to_string(node.kind),
                    " cannot stand here; fold batch norms and lower quantisers first");
}

// Attention in operations that runtimes before torch 2.0 have as well:
// softmax(query keyᵀ · scale + mask) value, or minus infinity where a mask of truths, or the order, hides a key.
FloatOperations::Value* FloatOperations::write_attention(const graph::AtenCall& call,
                                                         const std::vector<Value*>& inputs) {
  enum : size_t { kQuery, kKey, kValue, kMask, kDropout, kCausal, kScale };
  constexpr double kHidden = -std::numeric_limits<double>::infinity();
  const auto operand = [&](size_t position) {
    const auto slot = std::find(call.slots.begin(), call.slots.end(), position);
    return slot == call.slots.end() ? argument(call, position)
                                    : torch::jit::NamedValue(inputs[slot - call.slots.begin()]);
  };
  Value* keys = builder_.call("aten::transpose", operand(kKey), int64_t{-2}, int64_t{-1});
  Value* query = builder_.call("aten::mul", operand(kQuery), call.arguments.at(kScale).toDouble());
  Value* scores = builder_.call("aten::matmul", query, keys);
  if (call.arguments.at(kCausal).toBool()) {
    Value* seen = builder_.call("aten::tril", builder_.call("aten::ones_like", scores), int64_t{0});
    scores = builder_.call("aten::masked_fill", scores, builder_.call("aten::eq", seen, 0.0), kHidden);
  }
  const c10::IValue& mask = call.arguments.at(kMask);
  if (mask.isTensor() && mask.toTensor().scalar_type() == at::kBool) {
    scores = builder_.call("aten::masked_fill", scores, builder_.call("aten::logical_not", operand(kMask)), kHidden);
  } else if (mask.isTensor() || std::count(call.slots.begin(), call.slots.end(), kMask) != 0) {
    scores = builder_.call("aten::add", scores, operand(kMask));
  }
  Value* weights = builder_.call("aten::softmax", scores, int64_t{-1}, c10::IValue());
  return builder_.call("aten::matmul", weights, operand(kValue));
}

FloatOperations::Value* FloatOperations::write_call(const graph::AtenCall& call, const std::vector<Value*>& inputs) {
  if (call.op == "aten::scaled_dot_product_attention") {
    return write_attention(call, inputs);
  }
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(call.op.c_str(), call.overload.c_str());
  std::vector<torch::jit::NamedValue> arguments, by_name;
  for (const auto i : c10::irange(call.arguments.size())) {
    const auto slot = std::find(call.slots.begin(), call.slots.end(), i);
    torch::jit::NamedValue value =
        slot == call.slots.end() ? argument(call, i) : torch::jit::NamedValue(inputs[slot - call.slots.begin()]);
    const c10::Argument& place = handle.schema().arguments()[i];
    // What must be given by name decides which overload is meant.
    if (place.kwarg_only()) {
      by_name.push_back(builder_.named(place.name(), value));
    } else {
      arguments.push_back(value);
    }
  }
  return builder_.call_values(call.op.c_str(), arguments, by_name);
}

// A number that is the batch size is read from the images.
torch::jit::NamedValue FloatOperations::argument(const graph::AtenCall& call, size_t position) {
  const c10::IValue& value = call.arguments[position];
  std::vector<size_t> follow;
  for (const auto& [argument, element] : call.batch_sizes) {
    if (argument == position) {
      follow.push_back(element);
    }
  }
  const auto batch = [&] { return builder_.call("aten::size", builder_.input(), int64_t{0}); };
  if (follow.empty()) {
    if (is_stored(value)) {
      return torch::jit::NamedValue(stored(value.toTensor()));
    }
    return value.isTensor() ? torch::jit::NamedValue(builder_.attribute(value)) : torch::jit::NamedValue(value);
  }
  if (!value.isIntList()) {
    return torch::jit::NamedValue(batch());
  }
  std::vector<Value*> numbers;
  const std::vector<int64_t> sizes = value.toIntVector();
  for (const auto i : c10::irange(sizes.size())) {
    const bool follows = std::find(follow.begin(), follow.end(), i) != follow.end();
    numbers.push_back(follows ? batch() : builder_.number(sizes[i]));
  }
  return torch::jit::NamedValue(builder_.list(numbers));
}

torch::jit::NamedValue FloatOperations::bias(const Node& node) {
  return node.bias.defined() ? torch::jit::NamedValue(stored(node.bias.value)) : torch::jit::NamedValue(c10::IValue());
}

FloatOperations::Value* FloatOperations::stored(const at::Tensor& tensor) {
  Value*& value = values_[tensor.unsafeGetTensorImpl()];
  if (value != nullptr) {
    return value;
  }
  const at::Tensor place = storage_.take(padded(tensor.numel())).narrow(0, 0, tensor.numel()).view(tensor.sizes());
  place.copy_(tensor.detach());
  value = builder_.attribute(place);
  return value;
}

}  // namespace torchslim::deploy
