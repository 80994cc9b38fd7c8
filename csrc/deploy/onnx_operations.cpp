// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/onnx_operations.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <c10/util/Exception.h>
#include <torchslim/graph/interpret.h>

#include <cmath>

namespace torchslim::deploy {
namespace {

using graph::Node;
using graph::OpKind;
using Value = OnnxBuilder::Value;

// A pair of numbers for height and width as ONNX wants it, for as many dimensions as the image has.
std::vector<int64_t> spatial(const std::array<int64_t, 2>& pair, bool one_dimension) {
  return one_dimension ? std::vector<int64_t>{pair[1]} : std::vector<int64_t>{pair[0], pair[1]};
}

// The same on both sides of each dimension: all begins, then all ends.
std::vector<int64_t> both_sides(const std::array<int64_t, 2>& pair, bool one_dimension) {
  std::vector<int64_t> sides = spatial(pair, one_dimension);
  sides.insert(sides.end(), sides.begin(), sides.begin() + static_cast<int64_t>(sides.size()));
  return sides;
}

}  // namespace

Value OnnxOperations::convolution(OpKind kind, const graph::Window& window, const Value& x, const Value& weight,
                                  const Value& bias) {
  const bool one = kind == OpKind::kConv1d || kind == OpKind::kConvTranspose1d;
  std::vector<OnnxBuilder::Attribute> attributes{{"strides", spatial(window.stride, one)},
                                                 {"pads", both_sides(window.padding, one)},
                                                 {"dilations", spatial(window.dilation, one)},
                                                 {"group", window.groups}};
  std::vector<Value> inputs{x, weight};
  if (!bias.empty()) {
    inputs.push_back(bias);
  }
  if (graph::is_transposed(kind)) {
    attributes.emplace_back("output_padding", spatial(window.output_padding, one));
    return builder_.call("ConvTranspose", inputs, attributes);
  }
  return builder_.call("Conv", inputs, attributes);
}

Value OnnxOperations::linear(const OnnxValue& x, const Value& weight, const Value& bias) {
  if (x.shape.size() == 2) {
    std::vector<Value> inputs{x.name, weight};
    if (!bias.empty()) {
      inputs.push_back(bias);
    }
    return builder_.call("Gemm", inputs, {{"transB", int64_t{1}}});
  }
  const Value turned = builder_.call("Transpose", {weight}, {{"perm", std::vector<int64_t>{1, 0}}});
  const Value product = builder_.call("MatMul", {x.name, turned});
  return bias.empty() ? product : builder_.call("Add", {product, bias});
}

Value OnnxOperations::pool(const char* type, const Node& node, const OnnxValue& x, const graph::Window& window) {
  const bool one = x.shape.size() == 3;
  const bool average = std::string(type) == "AveragePool";
  bool rounds_up = false;
  for (size_t d = one ? 1 : 0; d < 2; ++d) {
    const size_t axis = x.shape.size() - 2 + d;
    const int64_t room = x.shape[axis] + 2 * window.padding[d] - window.dilation[d] * (window.kernel[d] - 1) - 1;
    rounds_up = rounds_up || node.shape[axis] != room / window.stride[d] + 1;
  }
  std::vector<OnnxBuilder::Attribute> attributes{{"kernel_shape", spatial(window.kernel, one)},
                                                 {"strides", spatial(window.stride, one)},
                                                 {"pads", both_sides(window.padding, one)}};
  if (rounds_up) {
    attributes.emplace_back("ceil_mode", int64_t{1});
  }
  if (average) {
    attributes.emplace_back("count_include_pad", int64_t{window.count_include_pad ? 1 : 0});
  } else {
    attributes.emplace_back("dilations", spatial(window.dilation, one));
  }
  return builder_.call(type, {x.name}, attributes);
}

Value OnnxOperations::separable(const Node& node, const OnnxValue& x) {
  const auto last = static_cast<int64_t>(x.shape.size()) - 1;
  // (in, out) along one dimension, times what the first place of the other gives for ones.
  const auto matrix = [&](int64_t dim) {
    std::vector<int64_t> image = x.shape, along(x.shape.size(), 1);
    image[0] = along[0] = along[dim] = x.shape[dim];
    image[1] = 1;
    const at::Tensor basis = at::eye(x.shape[dim], at::kDouble).view(along).expand(image).contiguous();
    at::Tensor answer = graph::run_node(node, {basis}, x.shape[dim]);
    for (int64_t i = last; i > 0; --i) {
      answer = i == dim ? answer : answer.select(i, 0);
    }
    return answer;
  };
  const at::Tensor columns = matrix(last);
  if (last == 2) {
    return builder_.call("MatMul", {x.name, builder_.constant(columns.to(at::kFloat))});
  }
  const at::Tensor rows = matrix(2) / columns.select(1, 0).sum();
  const Value turned = builder_.constant(rows.t().to(at::kFloat));
  return builder_.call("MatMul",
                       {turned, builder_.call("MatMul", {x.name, builder_.constant(columns.to(at::kFloat))})});
}

Value OnnxOperations::reshape(const Value& x, std::vector<int64_t> shape, int64_t free) {
  shape.at(free) = -1;
  return builder_.call("Reshape", {x, builder_.constant(shape)});
}

Value OnnxOperations::clip(const Value& x, double low, double high) {
  std::vector<Value> inputs{x, std::isinf(low) ? Value() : builder_.constant(static_cast<float>(low))};
  if (!std::isinf(high)) {
    inputs.push_back(builder_.constant(static_cast<float>(high)));
  }
  return builder_.call("Clip", inputs);
}

Value OnnxOperations::write(const Node& node, const std::vector<OnnxValue>& inputs) {
  builder_.at(node.layer);
  const auto parameter = [&](const graph::NamedTensor& tensor) {
    return tensor.defined() ? builder_.constant(tensor.value) : Value();
  };
  switch (node.kind) {
    case OpKind::kConv1d:
    case OpKind::kConv2d:
    case OpKind::kConvTranspose1d:
    case OpKind::kConvTranspose2d:
      return convolution(node.kind, node.window, inputs[0].name, parameter(node.weight), parameter(node.bias));
    case OpKind::kLinear:
      return linear(inputs[0], parameter(node.weight), parameter(node.bias));
    case OpKind::kBatchNorm2d: {
      const at::Tensor& mean = node.running_mean.value;
      const Value gamma =
          node.weight.defined() ? parameter(node.weight) : builder_.constant(mean.new_ones(mean.sizes()));
      const Value beta = node.bias.defined() ? parameter(node.bias) : builder_.constant(mean.new_zeros(mean.sizes()));
      return builder_.call("BatchNormalization",
                           {inputs[0].name, gamma, beta, parameter(node.running_mean), parameter(node.running_var)},
                           {{"epsilon", static_cast<float>(node.eps)}});
    }
    case OpKind::kRelu:
      return builder_.call("Relu", {inputs[0].name});
    case OpKind::kRelu6:
      return clip(inputs[0].name, 0, 6);
    case OpKind::kAdd:
      return builder_.call("Add", {inputs[0].name, inputs[1].name});
    case OpKind::kMul:
      return builder_.call("Mul", {inputs[0].name, inputs[1].name});
    case OpKind::kConcat: {
      std::vector<Value> names;
      for (const OnnxValue& input : inputs) {
        names.push_back(input.name);
      }
      return builder_.call("Concat", names, {{"axis", node.dim}});
    }
    case OpKind::kMaxPool2d:
      return pool("MaxPool", node, inputs[0], node.window);
    case OpKind::kAvgPool2d:
      // ONNX's runtimes do not agree on what ceil_mode divides by.
      return node.window.ceil_mode ? separable(node, inputs[0]) : pool("AveragePool", node, inputs[0], node.window);
    case OpKind::kGlobalAvgPool:
      return builder_.call("GlobalAveragePool", {inputs[0].name});
    case OpKind::kFlatten:
      return builder_.call("Flatten", {inputs[0].name}, {{"axis", int64_t{1}}});
    case OpKind::kAten:
      return write_onnx_call(*this, node, inputs);
    case OpKind::kInput:
    case OpKind::kFakeQuantize:
      break;
  }
  TORCH_CHECK_VALUE(false, "torchslim::save_onnx: layer '", node.layer, "': a ", graph::to_string(node.kind),
                    " cannot stand here; lower quantisers first");
}

}  // namespace torchslim::deploy
