// SPDX-License-Identifier: BSD-3-Clause
// Operators of ATen's as operators of ONNX: one function for each, found by name in the table at the end; those that move
// elements or resize images are in onnx_moves.cpp.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "deploy/onnx_call.h"

namespace torchslim::deploy {
namespace {

using Value = OnnxBuilder::Value;
using Sizes = std::vector<int64_t>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// --- functions of each element ---------------------------------------------------------------------------------------

template <const char* kType>
Value unary(const OnnxCall& c) {
  return c.call(kType, c.x().name);
}

constexpr char kSigmoid[] = "Sigmoid", kTanh[] = "Tanh", kAbs[] = "Abs", kNeg[] = "Neg", kExp[] = "Exp",
               kSqrt[] = "Sqrt", kSelu[] = "Selu", kLog[] = "Log", kReciprocal[] = "Reciprocal", kErf[] = "Erf",
               kSin[] = "Sin", kCos[] = "Cos";

Value hardsigmoid(const OnnxCall& c) {
  return c.builder().call("HardSigmoid", {c.x().name}, {{"alpha", 1.0F / 6}, {"beta", 0.5F}});
}

Value hardswish(const OnnxCall& c) {
  c.builder().need(14);
  return c.call("HardSwish", c.x().name);
}

Value silu(const OnnxCall& c) { return c.call("Mul", c.x().name, c.call("Sigmoid", c.x().name)); }

Value leaky_relu(const OnnxCall& c) {
  return c.builder().call("LeakyRelu", {c.x().name}, {{"alpha", static_cast<float>(c.real("negative_slope"))}});
}

Value elu(const OnnxCall& c) {
  if (c.real("scale") != 1 || c.real("input_scale") != 1) {
    c.refuse("has a scale other than 1");
  }
  return c.builder().call("Elu", {c.x().name}, {{"alpha", static_cast<float>(c.real("alpha"))}});
}

Value celu(const OnnxCall& c) {
  return c.builder().call("Celu", {c.x().name}, {{"alpha", static_cast<float>(c.real("alpha"))}});
}

Value gelu(const OnnxCall& c) {
  const Value x = c.x().name;
  Value inner;
  if (c.argument("approximate").toStringRef() == "tanh") {
    const Value cube = c.call("Mul", c.call("Mul", x, x), x);
    inner = c.call("Tanh", c.times(c.call("Add", x, c.times(cube, 0.044715)), std::sqrt(2 / std::numbers::pi)));
  } else {
    inner = c.call("Erf", c.times(x, 1 / std::numbers::sqrt2));
  }
  return c.call("Mul", c.times(x, 0.5), c.call("Add", inner, c.number(1)));
}

Value mish(const OnnxCall& c) { return c.call("Mul", c.x().name, c.call("Tanh", c.call("Softplus", c.x().name))); }

Value softplus(const OnnxCall& c) {
  const double beta = c.real("beta");
  return c.times(c.call("Softplus", c.times(c.x().name, beta)), 1 / beta);
}

Value log_sigmoid(const OnnxCall& c) { return c.call("Neg", c.call("Softplus", c.call("Neg", c.x().name))); }

Value hardtanh(const OnnxCall& c) { return c.operations().clip(c.x().name, c.real("min_val"), c.real("max_val")); }

Value clamp(const OnnxCall& c) {
  const auto bound = [&](const char* name, double none) {
    if (!c.is_none(name) && !c.argument(name).isScalar()) {
      c.refuse("has a bound that is a tensor; use torch.minimum and torch.maximum");
    }
    return c.real_or(name, none);
  };
  return c.operations().clip(c.x().name, bound("min", -kInfinity), bound("max", kInfinity));
}

Value threshold(const OnnxCall& c) {
  const Value above = c.call("Greater", c.x().name, c.number(c.real("threshold")));
  return c.call("Where", above, c.x().name, c.number(c.real("value")));
}

Value shrink(const OnnxCall& c, bool towards_zero) {
  const auto lambd = static_cast<float>(c.real("lambd"));
  return c.builder().call("Shrink", {c.x().name}, {{"lambd", lambd}, {"bias", towards_zero ? lambd : 0.0F}});
}

Value hardshrink(const OnnxCall& c) { return shrink(c, false); }
Value softshrink(const OnnxCall& c) { return shrink(c, true); }
Value rsqrt(const OnnxCall& c) { return c.call("Reciprocal", c.call("Sqrt", c.x().name)); }

Value square(const OnnxCall& c) { return c.call("Mul", c.x().name, c.x().name); }

// --- arithmetic ------------------------------------------------------------------------------------------------------

Value scaled_other(const OnnxCall& c) { return c.times(c.operand("other"), c.real_or("alpha", 1)); }

Value add(const OnnxCall& c) { return c.call("Add", c.operand("self"), scaled_other(c)); }
Value sub(const OnnxCall& c) { return c.call("Sub", c.operand("self"), scaled_other(c)); }
Value rsub(const OnnxCall& c) {
  return c.call("Sub", c.operand("other"), c.times(c.operand("self"), c.real_or("alpha", 1)));
}
Value mul(const OnnxCall& c) { return c.call("Mul", c.operand("self"), c.operand("other")); }

Value div(const OnnxCall& c) {
  if (!c.is_none("rounding_mode")) {
    c.refuse("rounds its result; leave rounding_mode out");
  }
  return c.call("Div", c.operand("self"), c.operand("other"));
}

Value pow(const OnnxCall& c) { return c.call("Pow", c.operand("self"), c.operand("exponent")); }
Value maximum(const OnnxCall& c) { return c.call("Max", c.operand("self"), c.operand("other")); }
Value minimum(const OnnxCall& c) { return c.call("Min", c.operand("self"), c.operand("other")); }

// What is true or false in torch is 1 or 0 here, so that arithmetic goes on with it.
constexpr int64_t kFloatType = 1, kBoolType = 9;  // TensorProto.DataType

template <const char* kType>
Value compared(const OnnxCall& c) {
  return c.builder().call("Cast", {c.call(kType, c.operand("self"), c.operand("other"))}, {{"to", kFloatType}});
}

constexpr char kGreater[] = "Greater", kGreaterOrEqual[] = "GreaterOrEqual", kLess[] = "Less",
               kLessOrEqual[] = "LessOrEqual";

Value condition(const OnnxCall& c, const char* name) {
  return c.builder().call("Cast", {c.operand(name)}, {{"to", kBoolType}});
}

Value where(const OnnxCall& c) {
  return c.call("Where", condition(c, "condition"), c.operand("self"), c.operand("other"));
}

Value masked_fill(const OnnxCall& c) {
  return c.call("Where", condition(c, "mask"), c.operand("value"), c.operand("self"));
}

Value zeros_like(const OnnxCall& c) { return c.call("ConstantOfShape", c.call("Shape", c.x().name)); }
Value ones_like(const OnnxCall& c) { return c.call("Add", zeros_like(c), c.number(1)); }

// --- sums ------------------------------------------------------------------------------------------------------------

// Up to opset 17 the dimensions are an attribute, later an input; of a sum always an input.
Value reduced_value(const OnnxCall& c, const char* type, const Value& x, const Sizes& dims, int64_t keep) {
  constexpr int64_t kDimsAsInput = 18;
  if (c.builder().opset() >= kDimsAsInput || std::string(type) == "ReduceSum") {
    return c.builder().call(type, {x, c.builder().constant(dims)}, {{"keepdims", keep}});
  }
  return c.builder().call(type, {x}, {{"axes", dims}, {"keepdims", keep}});
}

Value reduced(const OnnxCall& c, const char* type, Sizes dims) {
  for (int64_t& dim : dims) {
    dim = c.wrapped(dim);
  }
  return reduced_value(c, type, c.x().name, dims, c.has("keepdim") && c.boolean("keepdim") ? 1 : 0);
}

template <const char* kType>
Value over_dims(const OnnxCall& c) {
  if (!c.has("dim") || c.is_none("dim") || c.integers("dim").empty()) {
    c.refuse("goes over the whole batch; give it the dimensions of one image");
  }
  return reduced(c, kType, c.integers("dim"));
}

constexpr char kSum[] = "ReduceSum", kMean[] = "ReduceMean", kMax[] = "ReduceMax", kMin[] = "ReduceMin";

// The mean square distance from the mean, over one element less than there are unless `correction` is 0.
Value var(const OnnxCall& c) {
  if (c.is_none("dim") || c.integers("dim").empty()) {
    c.refuse("goes over the whole batch; give it the dimensions of one image");
  }
  Sizes dims = c.integers("dim");
  double count = 1;
  for (int64_t& dim : dims) {
    dim = c.wrapped(dim);
    count *= static_cast<double>(c.x().shape.at(dim));
  }
  const double correction =
      c.has("correction") ? c.real_or("correction", 1) : static_cast<double>(c.boolean("unbiased"));
  const Value mean = reduced_value(c, "ReduceMean", c.x().name, dims, 1);
  const Value away = c.call("Sub", c.x().name, mean);
  const Value squares = reduced_value(c, "ReduceMean", c.call("Mul", away, away), dims, c.boolean("keepdim") ? 1 : 0);
  return c.times(squares, count / (count - correction));
}

Value std_deviation(const OnnxCall& c) { return c.call("Sqrt", var(c)); }

Value vector_norm(const OnnxCall& c) {
  const double order = c.real("ord");
  if ((order != 1 && order != 2) || c.is_none("dim")) {
    c.refuse("is written for the orders 1 and 2 over dimensions of one image");
  }
  return reduced(c, order == 1 ? "ReduceL1" : "ReduceL2", c.integers("dim"));
}

graph::Window window_of(const OnnxCall& c, const std::vector<int64_t>& kernel, const std::vector<int64_t>& stride,
                        const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation) {
  const bool one = c.rank() == 3;
  const auto pair = [&](const std::vector<int64_t>& numbers, int64_t none) {
    return std::array<int64_t, 2>{one ? none : numbers.front(), numbers.back()};
  };
  graph::Window window;
  window.kernel = pair(kernel, 1);
  window.stride = pair(stride.empty() ? kernel : stride, 1);
  window.padding = pair(padding, 0);
  window.dilation = pair(dilation, 1);
  return window;
}

Value avg_pool(const OnnxCall& c) {
  if (c.rank() < 3 || c.rank() > 4 || !c.is_none("divisor_override")) {
    c.refuse("is written over lengths and images, without divisor_override");
  }
  graph::Window window = window_of(c, c.integers("kernel_size"), c.integers("stride"), c.integers("padding"), {1});
  window.count_include_pad = c.boolean("count_include_pad");
  return c.operations().pool("AveragePool", c.node(), c.x(), window);
}

Value max_pool1d(const OnnxCall& c) {
  if (c.rank() != 3) {
    c.refuse("is written for (N, C, L) only");
  }
  const auto window =
      window_of(c, c.integers("kernel_size"), c.integers("stride"), c.integers("padding"), c.integers("dilation"));
  return c.operations().pool("MaxPool", c.node(), c.x(), window);
}

// Windows of several sizes: their elements one window after the other, each filled up with its last to the largest size.
Value uneven_max_pool(const OnnxCall& c) {
  OnnxValue x = c.x();
  Sizes kernel;
  for (int64_t dim = 2; dim < c.rank(); ++dim) {
    const int64_t size = x.shape[dim], windows = c.shape()[dim];
    const auto begin = [&](int64_t i) { return i * size / windows; };
    const auto end = [&](int64_t i) { return ((i + 1) * size + windows - 1) / windows; };
    int64_t largest = 1;
    for (int64_t i = 0; i < windows; ++i) {
      largest = std::max(largest, end(i) - begin(i));
    }
    Sizes places;
    for (int64_t i = 0; i < windows * largest; ++i) {
      places.push_back(std::min(begin(i / largest) + i % largest, end(i / largest) - 1));
    }
    x.name = c.builder().call("Gather", {x.name, c.builder().constant(places)}, {{"axis", dim}});
    x.shape[dim] = windows * largest;
    kernel.push_back(largest);
  }
  return c.operations().pool("MaxPool", c.node(), x, window_of(c, kernel, {}, {0}, {1}));
}

// Three numbers, for depth, height and width.
Sizes triple(const OnnxCall& c, const char* name) {
  const Sizes given = c.integers(name);
  return given.size() == 1 ? Sizes(3, given[0]) : given;
}

// The same on both sides of each dimension: all begins, then all ends.
Sizes on_both_sides(Sizes sides) {
  sides.insert(sides.end(), sides.begin(), sides.begin() + static_cast<int64_t>(sides.size()));
  return sides;
}

// Over volumes, as local response normalisation does.
Value avg_pool3d(const OnnxCall& c) {
  if (c.rank() != 5 || !c.is_none("divisor_override") || c.boolean("ceil_mode")) {
    c.refuse("is written for (N, C, D, H, W) only, without divisor_override and ceil_mode");
  }
  const char* stride = c.integers("stride").empty() ? "kernel_size" : "stride";
  return c.builder().call("AveragePool", {c.x().name},
                          {{"kernel_shape", triple(c, "kernel_size")},
                           {"strides", triple(c, stride)},
                           {"pads", on_both_sides(triple(c, "padding"))},
                           {"count_include_pad", c.boolean("count_include_pad") ? int64_t{1} : int64_t{0}}});
}

Value max_pool3d(const OnnxCall& c) {
  if (c.rank() != 5 || c.boolean("ceil_mode")) {
    c.refuse("is written for (N, C, D, H, W) only, without ceil_mode");
  }
  const char* stride = c.integers("stride").empty() ? "kernel_size" : "stride";
  return c.builder().call("MaxPool", {c.x().name},
                          {{"kernel_shape", triple(c, "kernel_size")},
                           {"strides", triple(c, stride)},
                           {"pads", on_both_sides(triple(c, "padding"))},
                           {"dilations", triple(c, "dilation")}});
}

Value adaptive_avg_pool3d(const OnnxCall& c) {
  if (c.rank() != 5 || triple(c, "output_size") != Sizes{1, 1, 1}) {
    c.refuse("is written for (N, C, D, H, W) and one average for each channel only");
  }
  return c.call("GlobalAveragePool", c.x().name);
}

// A convolution that has no kind of its own: over volumes, or with a weight that is computed.
Value convolution(const OnnxCall& c) {
  const bool named = c.has("padding") && c.argument("padding").isString();
  if (named || (c.has("transposed") && c.boolean("transposed"))) {
    c.refuse("is written with padding as numbers, and not transposed");
  }
  std::vector<Value> inputs{c.operand("input"), c.operand("weight")};
  if (c.input("bias") != nullptr || !c.is_none("bias")) {
    inputs.push_back(c.operand("bias"));
  }
  return c.builder().call("Conv", inputs,
                          {{"strides", c.integers("stride")},
                           {"pads", on_both_sides(c.integers("padding"))},
                           {"dilations", c.integers("dilation")},
                           {"group", c.integer("groups")}});
}

Value adaptive_max_pool(const OnnxCall& c) {
  Sizes kernel;
  for (size_t i = 2; i < c.x().shape.size(); ++i) {
    if (c.x().shape[i] % c.shape()[i] != 0) {
      return uneven_max_pool(c);
    }
    kernel.push_back(c.x().shape[i] / c.shape()[i]);
  }
  return c.operations().pool("MaxPool", c.node(), c.x(), window_of(c, kernel, {}, {0}, {1}));
}

// --- normalisation, attention ----------------------------------------------------------------------------------------

// A weight or bias of a normalisation, or what stands for none.
Value affine(const OnnxCall& c, const char* name, const Sizes& shape, double otherwise) {
  return c.is_none(name) && c.input(name) == nullptr ? c.builder().constant(at::full(shape, otherwise, at::kFloat))
                                                     : c.operand(name);
}

Value layer_norm(const OnnxCall& c) {
  c.builder().need(17);
  const Sizes shape = c.integers("normalized_shape");
  return c.builder().call(
      "LayerNormalization", {c.x().name, affine(c, "weight", shape, 1), affine(c, "bias", shape, 0)},
      {{"axis", -static_cast<int64_t>(shape.size())}, {"epsilon", static_cast<float>(c.real("eps"))}});
}

Value normalised_channels(const OnnxCall& c, const Value& x, const Value& scale, const Value& offset) {
  return c.builder().call("InstanceNormalization", {x, scale, offset},
                          {{"epsilon", static_cast<float>(c.real("eps"))}});
}

Value group_norm(const OnnxCall& c) {
  const int64_t groups = c.integer("num_groups"), channels = c.x().shape.at(1);
  const Value apart =
      c.operations().reshape(c.x().name, {1, groups, c10::multiply_integers(c.x().shape) / c.x().shape[0] / groups});
  const Value even = normalised_channels(c, apart, c.builder().constant(at::ones({groups})),
                                         c.builder().constant(at::zeros({groups})));
  Value y = c.operations().reshape(even, c.shape());
  Sizes over(c.rank() - 1, 1);
  over[0] = channels;
  const auto along = [&](const char* name) {
    return c.builder().constant(c.argument(name).toTensor().reshape(over).to(at::kFloat));
  };
  if (!c.is_none("weight")) {
    y = c.call("Mul", y, along("weight"));
  }
  return c.is_none("bias") ? y : c.call("Add", y, along("bias"));
}

Value batch_norm(const OnnxCall& c) {
  const Sizes channels{c.x().shape.at(1)};
  return c.builder().call("BatchNormalization",
                          {c.x().name, affine(c, "weight", channels, 1), affine(c, "bias", channels, 0),
                           c.operand("running_mean"), c.operand("running_var")},
                          {{"epsilon", static_cast<float>(c.real("eps"))}});
}

Value instance_norm(const OnnxCall& c) {
  if (!c.boolean("use_input_stats")) {
    return batch_norm(c);
  }
  const Sizes channels{c.x().shape.at(1)};
  return normalised_channels(c, c.x().name, affine(c, "weight", channels, 1), affine(c, "bias", channels, 0));
}

template <const char* kType>
Value over_dim(const OnnxCall& c) {
  return c.builder().call(kType, {c.x().name}, {{"axis", c.dim("dim")}});
}

constexpr char kSoftmax[] = "Softmax", kLogSoftmax[] = "LogSoftmax";

Value matmul(const OnnxCall& c) {
  return c.call("MatMul", c.operand("self"), c.operand(c.has("mat2") ? "mat2" : "other"));
}

Value linear(const OnnxCall& c) {
  const Value turned = c.builder().call("Transpose", {c.operand("weight")}, {{"perm", Sizes{1, 0}}});
  const Value product = c.call("MatMul", c.operand("input"), turned);
  return c.is_none("bias") && c.input("bias") == nullptr ? product : c.call("Add", product, c.operand("bias"));
}

// softmax(q·kᵀ·scale + mask)·v
Value attention(const OnnxCall& c) {
  const OnnxValue *query = c.input("query"), *key = c.input("key"), *value = c.input("value");
  if (query == nullptr || key == nullptr || value == nullptr) {
    c.refuse("is written for queries, keys and values that are computed");
  }
  const auto rank = static_cast<int64_t>(key->shape.size());
  Sizes order(rank);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[rank - 1], order[rank - 2]);
  const Value turned = c.builder().call("Transpose", {key->name}, {{"perm", order}});
  Value scores = c.call("MatMul", c.times(query->name, c.real("scale")), turned);
  const auto hidden = [](const at::Tensor& seen) {
    return at::zeros(seen.sizes()).masked_fill(seen.logical_not(), -std::numeric_limits<float>::infinity());
  };
  if (c.boolean("is_causal")) {
    const at::Tensor seen = at::ones({query->shape[rank - 2], key->shape[rank - 2]}).tril().to(at::kBool);
    scores = c.call("Add", scores, c.builder().constant(hidden(seen)));
  } else if (c.input("attn_mask") != nullptr) {
    scores = c.call("Add", scores, c.operand("attn_mask"));
  } else if (!c.is_none("attn_mask")) {
    const at::Tensor& mask = c.argument("attn_mask").toTensor();
    scores = c.call("Add", scores, c.builder().constant(mask.scalar_type() == at::kBool ? hidden(mask) : mask));
  }
  const Value weights = c.builder().call("Softmax", {scores}, {{"axis", int64_t{-1}}});
  return c.call("MatMul", weights, value->name);
}

Value prelu(const OnnxCall& c) {
  const c10::IValue& slope = c.argument("weight");
  if (!slope.isTensor()) {
    c.refuse("takes a slope that is computed; make it a parameter");
  }
  Sizes over(std::max<int64_t>(1, c.rank() - 1), 1);
  over[0] = slope.toTensor().numel();
  return c.call("PRelu", c.x().name, c.builder().constant(slope.toTensor().to(at::kFloat).reshape(over)));
}

const OnnxWriters& computations() {
  static const OnnxWriters table{
      {"sigmoid", unary<kSigmoid>},
      {"hardsigmoid", hardsigmoid},
      {"hardswish", hardswish},
      {"silu", silu},
      {"tanh", unary<kTanh>},
      {"leaky_relu", leaky_relu},
      {"elu", elu},
      {"selu", unary<kSelu>},
      {"celu", celu},
      {"gelu", gelu},
      {"mish", mish},
      {"softplus", softplus},
      {"log_sigmoid", log_sigmoid},
      {"hardtanh", hardtanh},
      {"clamp", clamp},
      {"clamp_min", clamp},
      {"clamp_max", clamp},
      {"threshold", threshold},
      {"abs", unary<kAbs>},
      {"neg", unary<kNeg>},
      {"exp", unary<kExp>},
      {"sqrt", unary<kSqrt>},
      {"square", square},
      {"sin", unary<kSin>},
      {"cos", unary<kCos>},
      {"erf", unary<kErf>},
      {"log", unary<kLog>},
      {"reciprocal", unary<kReciprocal>},
      {"rsqrt", rsqrt},
      {"hardshrink", hardshrink},
      {"softshrink", softshrink},

      {"gt", compared<kGreater>},
      {"ge", compared<kGreaterOrEqual>},
      {"lt", compared<kLess>},
      {"le", compared<kLessOrEqual>},
      {"where", where},
      {"masked_fill", masked_fill},
      {"pow", pow},
      {"add", add},
      {"sub", sub},
      {"rsub", rsub},
      {"mul", mul},
      {"div", div},
      {"maximum", maximum},
      {"minimum", minimum},
      {"sum", over_dims<kSum>},
      {"mean", over_dims<kMean>},
      {"var", var},
      {"std", std_deviation},
      {"linalg_vector_norm", vector_norm},
      {"prelu", prelu},
      {"batch_norm", batch_norm},
      {"instance_norm", instance_norm},
      {"layer_norm", layer_norm},
      {"group_norm", group_norm},
      {"softmax", over_dim<kSoftmax>},
      {"log_softmax", over_dim<kLogSoftmax>},
      {"matmul", matmul},
      {"bmm", matmul},
      {"linear", linear},
      {"scaled_dot_product_attention", attention},
      {"adaptive_max_pool2d", adaptive_max_pool},
      {"max_pool1d", max_pool1d},
      {"amax", over_dims<kMax>},
      {"max", over_dims<kMax>},
      {"amin", over_dims<kMin>},
      {"min", over_dims<kMin>},
      {"avg_pool1d", avg_pool},
      {"avg_pool2d", avg_pool},
      {"avg_pool3d", avg_pool3d},
      {"max_pool3d", max_pool3d},
      {"adaptive_avg_pool3d", adaptive_avg_pool3d},
      {"_convolution", convolution},
      {"_convolution_mode", convolution},
      {"convolution", convolution},
      {"zeros_like", zeros_like},
      {"ones_like", ones_like},
  };
  return table;
}

}  // namespace

Value write_onnx_call(OnnxOperations& operations, const graph::Node& node, const std::vector<OnnxValue>& inputs) {
  const std::string& op = node.call->op;
  const std::string name = op.substr(op.rfind(':') + 1);
  const OnnxWriters& writers = onnx_moves().count(name) != 0 ? onnx_moves() : computations();
  const auto found = writers.find(name);
  TORCH_CHECK_VALUE(found != writers.end(), "torchslim::save_onnx: layer '", node.layer, "': ", op,
                    " has no form in ONNX that is written yet; save a .ptl file, or keep it out of the network");
  return found->second(OnnxCall(operations, node, inputs));
}

}  // namespace torchslim::deploy
