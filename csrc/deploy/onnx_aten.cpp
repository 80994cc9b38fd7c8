// SPDX-License-Identifier: BSD-3-Clause
// Operators of ATen's as operators of ONNX: one function for each, found by name in the table at the end.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torchslim/graph/interpret.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <unordered_map>

#include "deploy/onnx_operations.h"

namespace torchslim::deploy {
namespace {

using graph::Node;
using Value = OnnxBuilder::Value;
using Sizes = std::vector<int64_t>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// A call that is written: its arguments by the names of ATen's schema.
class Call {
 public:
  Call(OnnxOperations& operations, const Node& node, const std::vector<OnnxValue>& inputs)
      : operations_(operations),
        node_(node),
        inputs_(inputs),
        schema_(c10::Dispatcher::singleton()
                    .findSchemaOrThrow(node.call->op.c_str(), node.call->overload.c_str())
                    .schema()) {}

  OnnxOperations& operations() const { return operations_; }
  OnnxBuilder& builder() const { return operations_.builder(); }
  const Node& node() const { return node_; }
  const std::vector<OnnxValue>& inputs() const { return inputs_; }
  const OnnxValue& x() const { return inputs_.at(0); }
  const Sizes& shape() const { return node_.shape; }

  bool has(const char* name) const { return schema_.argumentIndexWithName(name).has_value(); }
  const c10::IValue& argument(const char* name) const {
    return node_.call->arguments.at(*schema_.argumentIndexWithName(name));
  }
  bool is_none(const char* name) const { return !has(name) || argument(name).isNone(); }
  int64_t integer(const char* name) const { return argument(name).toInt(); }
  bool boolean(const char* name) const { return argument(name).toBool(); }
  double real(const char* name) const { return argument(name).toScalar().toDouble(); }
  double real_or(const char* name, double otherwise) const { return is_none(name) ? otherwise : real(name); }
  Sizes integers(const char* name) const {
    const c10::IValue& value = argument(name);
    return value.isInt() ? Sizes{value.toInt()} : value.toIntVector();
  }

  // The input that stands in a place, if one does.
  const OnnxValue* input(const char* name) const {
    const auto place = static_cast<size_t>(*schema_.argumentIndexWithName(name));
    const auto& slots = node_.call->slots;
    const auto found = std::find(slots.begin(), slots.end(), place);
    return found == slots.end() ? nullptr : &inputs_[found - slots.begin()];
  }

  // An input, a tensor or a number as a value.
  Value operand(const char* name) const {
    if (const OnnxValue* value = input(name)) {
      return value->name;
    }
    const c10::IValue& value = argument(name);
    return value.isTensor() ? builder().constant(value.toTensor().to(at::kFloat))
                            : builder().constant(static_cast<float>(real(name)));
  }

  int64_t rank() const { return static_cast<int64_t>(x().shape.size()); }
  int64_t dim(const char* name) const { return wrapped(integer(name)); }
  int64_t wrapped(int64_t dim) const { return dim < 0 ? dim + rank() : dim; }

  template <typename... Names>
  Value call(const char* type, const Names&... names) const {
    return builder().call(type, {names...});
  }
  Value number(double value) const { return builder().constant(static_cast<float>(value)); }
  Value times(const Value& value, double factor) const {
    return factor == 1 ? value : call("Mul", value, number(factor));
  }

  [[noreturn]] void refuse(const std::string& why) const {
    TORCH_CHECK_VALUE(false, "torchslim::save_onnx: layer '", node_.layer, "': ", node_.call->op, " ", why);
  }

 private:
  OnnxOperations& operations_;
  const Node& node_;
  const std::vector<OnnxValue>& inputs_;
  const c10::FunctionSchema& schema_;
};

// --- moves ---------------------------------------------------------------------------------------------------------

Value same(const Call& c) { return c.x().name; }

// The element of a new shape that holds the batch.
int64_t batch_place(const Call& c, const char* name) {
  if (!c.node().call->batch_sizes.empty()) {
    return static_cast<int64_t>(c.node().call->batch_sizes.front().second);
  }
  const Sizes asked = c.integers(name);
  const auto open = std::find(asked.begin(), asked.end(), -1);
  return open == asked.end() ? 0 : open - asked.begin();
}

Value view(const Call& c) {
  return c.operations().reshape(c.x().name, c.shape(), batch_place(c, c.has("shape") ? "shape" : "size"));
}

Value to_shape(const Call& c) { return c.operations().reshape(c.x().name, c.shape()); }

Value transposed(const Call& c, const Sizes& order) {
  return c.builder().call("Transpose", {c.x().name}, {{"perm", order}});
}

Value permute(const Call& c) {
  Sizes order = c.integers("dims");
  for (int64_t& dim : order) {
    dim = c.wrapped(dim);
  }
  return transposed(c, order);
}

Value transpose(const Call& c) {
  Sizes order(c.rank());
  std::iota(order.begin(), order.end(), 0);
  std::swap(order.at(c.dim("dim0")), order.at(c.dim("dim1")));
  return transposed(c, order);
}

Value t(const Call& c) { return c.rank() < 2 ? same(c) : transposed(c, {1, 0}); }

Value unsqueeze(const Call& c) {
  const int64_t dim = c.integer("dim");
  return c.call("Unsqueeze", c.x().name, c.builder().constant(Sizes{dim < 0 ? dim + c.rank() + 1 : dim}));
}

Value squeeze(const Call& c) {
  Sizes dims;
  for (int64_t i = 0; i < c.rank(); ++i) {
    const bool asked = !c.has("dim") || [&] {
      const Sizes named = c.integers("dim");
      return std::any_of(named.begin(), named.end(), [&](int64_t dim) { return c.wrapped(dim) == i; });
    }();
    if (asked && c.x().shape[i] == 1 && i > 0) {
      dims.push_back(i);
    }
  }
  return dims.empty() ? same(c) : c.call("Squeeze", c.x().name, c.builder().constant(dims));
}

Value sliced(const Call& c, int64_t dim, int64_t begin, int64_t end, int64_t step) {
  const auto list = [&](int64_t number) { return c.builder().constant(Sizes{number}); };
  return c.call("Slice", c.x().name, list(begin), list(end), list(dim), list(step));
}

Value slice(const Call& c) {
  const int64_t begin = c.is_none("start") ? 0 : c.integer("start");
  const int64_t end = c.is_none("end") ? std::numeric_limits<int64_t>::max() : c.integer("end");
  return sliced(c, c.dim("dim"), begin, end, c.integer("step"));
}

Value narrow(const Call& c) {
  const int64_t start = c.integer("start"), dim = c.dim("dim");
  const int64_t begin = start < 0 ? start + c.x().shape.at(dim) : start;
  return sliced(c, dim, begin, begin + c.integer("length"), 1);
}

Value select(const Call& c) {
  const Value index = c.builder().constant(at::full({}, c.integer("index"), at::kLong));
  return c.builder().call("Gather", {c.x().name, index}, {{"axis", c.dim("dim")}});
}

Value index_select(const Call& c) {
  const c10::IValue& index = c.argument("index");
  if (!index.isTensor()) {
    c.refuse("takes an index that is computed; make it a buffer of the model");
  }
  const Value numbers = c.builder().constant(index.toTensor().to(at::kLong));
  return c.builder().call("Gather", {c.x().name, numbers}, {{"axis", c.dim("dim")}});
}

Value expand(const Call& c) {
  Sizes shape = c.shape();
  shape[0] = 1;  // as large as it is
  return c.call("Expand", c.x().name, c.builder().constant(shape));
}

// Pads are given from the last dimension on; ONNX wants all begins, then all ends.
Value padded(const Call& c, const std::string& mode, double value) {
  const Sizes pads = c.integers(c.has("pad") ? "pad" : "padding");
  Sizes sides(2 * c.rank());
  for (size_t i = 0; i < pads.size() / 2; ++i) {
    const int64_t dim = c.rank() - 1 - static_cast<int64_t>(i);
    sides.at(dim) = pads[2 * i];
    sides.at(dim + c.rank()) = pads[2 * i + 1];
  }
  std::vector<Value> inputs{c.x().name, c.builder().constant(sides)};
  if (mode == "constant") {
    inputs.push_back(c.number(value));
  }
  return c.builder().call("Pad", inputs, {{"mode", mode}});
}

Value constant_pad(const Call& c) { return padded(c, "constant", c.real("value")); }
Value reflection_pad(const Call& c) { return padded(c, "reflect", 0); }
Value replication_pad(const Call& c) { return padded(c, "edge", 0); }

Value pad(const Call& c) {
  const std::string mode = c.argument("mode").toStringRef();
  if (mode == "circular") {
    c.refuse("pads in a circle, which ONNX lacks at this opset; pad with zeros, edges or reflections");
  }
  return padded(c, mode == "replicate" ? "edge" : mode, c.real_or("value", 0));
}

Value pixel_shuffle(const Call& c) {
  return c.builder().call("DepthToSpace", {c.x().name},
                          {{"blocksize", c.integer("upscale_factor")}, {"mode", std::string("CRD")}});
}

Value reordered(const Call& c, const Sizes& apart, const Sizes& order) {
  const Value pieces = c.operations().reshape(c.x().name, apart);
  const Value turned = c.builder().call("Transpose", {pieces}, {{"perm", order}});
  return c.operations().reshape(turned, c.shape());
}

Value pixel_unshuffle(const Call& c) {
  const int64_t r = c.integer("downscale_factor");
  const Sizes& in = c.x().shape;
  if (in.size() != 4) {
    c.refuse("is written for (N, C, H, W) only");
  }
  return reordered(c, {in[0], in[1], in[2] / r, r, in[3] / r, r}, {0, 1, 3, 5, 2, 4});
}

Value channel_shuffle(const Call& c) {
  Sizes apart = c.x().shape, order(apart.size() + 1);
  const int64_t groups = c.integer("groups");
  apart[1] /= groups;
  apart.insert(apart.begin() + 1, groups);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[1], order[2]);
  return reordered(c, apart, order);
}

// What only moves elements, found out by moving their numbers: a look-up in each image's elements.
Value gathered(const Call& c) {
  const int64_t batch = c.operations().batch();
  if (c.x().shape[0] != batch || c.shape()[0] != batch) {
    c.refuse("moves elements of a tensor whose first dimension is not the batch");
  }
  std::vector<at::Tensor> numbers;
  for (const OnnxValue& input : c.inputs()) {
    Sizes one = input.shape;
    one[0] = 1;
    const int64_t count = c10::multiply_integers(one);
    numbers.push_back(at::arange(1, count + 1, at::kDouble).view(one));
  }
  const at::Tensor places = graph::run_node(c.node(), numbers, 1).reshape({-1}).to(at::kLong);
  const bool fills_in = (places == 0).any().item<bool>();
  Value flat = c.call("Flatten", c.x().name);
  if (fills_in) {  // a zero before all elements
    flat = c.call("Pad", flat, c.builder().constant(Sizes{0, 1, 0, 0}), c.number(0));
  }
  const Value index = c.builder().constant(fills_in ? places : places - 1);
  return c.operations().reshape(c.builder().call("Gather", {flat, index}, {{"axis", int64_t{1}}}), c.shape());
}

Value separable(const Call& c) { return c.operations().separable(c.node(), c.x()); }

bool is_multiple(const Call& c) {
  const Sizes &in = c.x().shape, &out = c.shape();
  for (size_t i = 2; i < in.size(); ++i) {
    if (out[i] % in[i] != 0) {
      return false;
    }
  }
  return true;
}

Value resized(const Call& c, const std::string& mode, const std::string& places, const std::string& rounding) {
  at::Tensor scales = at::ones({c.rank()});
  for (int64_t i = 2; i < c.rank(); ++i) {
    scales[i] = static_cast<float>(c.shape()[i]) / static_cast<float>(c.x().shape[i]);
  }
  return c.builder().call("Resize", {c.x().name, "", c.builder().constant(scales)},
                          {{"mode", mode}, {"coordinate_transformation_mode", places}, {"nearest_mode", rounding}});
}

Value upsample_nearest(const Call& c) {
  return is_multiple(c) ? resized(c, "nearest", "asymmetric", "floor") : gathered(c);
}

Value upsample_linear(const Call& c) {
  const bool corners = c.boolean("align_corners");
  return is_multiple(c) && !corners ? resized(c, "linear", "pytorch_half_pixel", "round_prefer_floor") : separable(c);
}

// --- functions of each element ---------------------------------------------------------------------------------------

template <const char* kType>
Value unary(const Call& c) {
  return c.call(kType, c.x().name);
}

constexpr char kSigmoid[] = "Sigmoid", kTanh[] = "Tanh", kAbs[] = "Abs", kNeg[] = "Neg", kExp[] = "Exp",
               kSqrt[] = "Sqrt", kSelu[] = "Selu";

Value hardsigmoid(const Call& c) {
  return c.builder().call("HardSigmoid", {c.x().name}, {{"alpha", 1.0F / 6}, {"beta", 0.5F}});
}

Value hardswish(const Call& c) {
  c.builder().need(14);
  return c.call("HardSwish", c.x().name);
}

Value silu(const Call& c) { return c.call("Mul", c.x().name, c.call("Sigmoid", c.x().name)); }

Value leaky_relu(const Call& c) {
  return c.builder().call("LeakyRelu", {c.x().name}, {{"alpha", static_cast<float>(c.real("negative_slope"))}});
}

Value elu(const Call& c) {
  if (c.real("scale") != 1 || c.real("input_scale") != 1) {
    c.refuse("has a scale other than 1");
  }
  return c.builder().call("Elu", {c.x().name}, {{"alpha", static_cast<float>(c.real("alpha"))}});
}

Value celu(const Call& c) {
  return c.builder().call("Celu", {c.x().name}, {{"alpha", static_cast<float>(c.real("alpha"))}});
}

Value gelu(const Call& c) {
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

Value mish(const Call& c) { return c.call("Mul", c.x().name, c.call("Tanh", c.call("Softplus", c.x().name))); }

Value softplus(const Call& c) {
  const double beta = c.real("beta");
  return c.times(c.call("Softplus", c.times(c.x().name, beta)), 1 / beta);
}

Value log_sigmoid(const Call& c) { return c.call("Neg", c.call("Softplus", c.call("Neg", c.x().name))); }

Value hardtanh(const Call& c) { return c.operations().clip(c.x().name, c.real("min_val"), c.real("max_val")); }

Value clamp(const Call& c) {
  const auto bound = [&](const char* name, double none) {
    if (!c.is_none(name) && !c.argument(name).isScalar()) {
      c.refuse("has a bound that is a tensor; use torch.minimum and torch.maximum");
    }
    return c.real_or(name, none);
  };
  return c.operations().clip(c.x().name, bound("min", -kInfinity), bound("max", kInfinity));
}

Value threshold(const Call& c) {
  const Value above = c.call("Greater", c.x().name, c.number(c.real("threshold")));
  return c.call("Where", above, c.x().name, c.number(c.real("value")));
}

Value square(const Call& c) { return c.call("Mul", c.x().name, c.x().name); }

// --- arithmetic ------------------------------------------------------------------------------------------------------

Value scaled_other(const Call& c) { return c.times(c.operand("other"), c.real_or("alpha", 1)); }

Value add(const Call& c) { return c.call("Add", c.operand("self"), scaled_other(c)); }
Value sub(const Call& c) { return c.call("Sub", c.operand("self"), scaled_other(c)); }
Value rsub(const Call& c) {
  return c.call("Sub", c.operand("other"), c.times(c.operand("self"), c.real_or("alpha", 1)));
}
Value mul(const Call& c) { return c.call("Mul", c.operand("self"), c.operand("other")); }

Value div(const Call& c) {
  if (!c.is_none("rounding_mode")) {
    c.refuse("rounds its result; leave rounding_mode out");
  }
  return c.call("Div", c.operand("self"), c.operand("other"));
}

Value pow(const Call& c) { return c.call("Pow", c.operand("self"), c.operand("exponent")); }
Value maximum(const Call& c) { return c.call("Max", c.operand("self"), c.operand("other")); }
Value minimum(const Call& c) { return c.call("Min", c.operand("self"), c.operand("other")); }

Value zeros_like(const Call& c) { return c.call("ConstantOfShape", c.call("Shape", c.x().name)); }
Value ones_like(const Call& c) { return c.call("Add", zeros_like(c), c.number(1)); }

// --- sums ------------------------------------------------------------------------------------------------------------

// Up to opset 17 the dimensions are an attribute, later an input; of a sum always an input.
Value reduced(const Call& c, const char* type, Sizes dims) {
  constexpr int64_t kDimsAsInput = 18;
  for (int64_t& dim : dims) {
    dim = c.wrapped(dim);
  }
  const int64_t keep = c.has("keepdim") && c.boolean("keepdim") ? 1 : 0;
  if (c.builder().opset() >= kDimsAsInput || std::string(type) == "ReduceSum") {
    return c.builder().call(type, {c.x().name, c.builder().constant(dims)}, {{"keepdims", keep}});
  }
  return c.builder().call(type, {c.x().name}, {{"axes", dims}, {"keepdims", keep}});
}

template <const char* kType>
Value over_dims(const Call& c) {
  if (!c.has("dim") || c.is_none("dim") || c.integers("dim").empty()) {
    c.refuse("goes over the whole batch; give it the dimensions of one image");
  }
  return reduced(c, kType, c.integers("dim"));
}

constexpr char kSum[] = "ReduceSum", kMean[] = "ReduceMean", kMax[] = "ReduceMax";

graph::Window window_of(const Call& c, const std::vector<int64_t>& kernel, const std::vector<int64_t>& stride,
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

Value avg_pool(const Call& c) {
  if (c.rank() < 3 || c.rank() > 4 || !c.is_none("divisor_override")) {
    c.refuse("is written over lengths and images, without divisor_override");
  }
  graph::Window window = window_of(c, c.integers("kernel_size"), c.integers("stride"), c.integers("padding"), {1});
  window.count_include_pad = c.boolean("count_include_pad");
  return c.operations().pool("AveragePool", c.node(), c.x(), window);
}

Value max_pool1d(const Call& c) {
  if (c.rank() != 3) {
    c.refuse("is written for (N, C, L) only");
  }
  const auto window =
      window_of(c, c.integers("kernel_size"), c.integers("stride"), c.integers("padding"), c.integers("dilation"));
  return c.operations().pool("MaxPool", c.node(), c.x(), window);
}

Value adaptive_max_pool(const Call& c) {
  Sizes kernel;
  for (size_t i = 2; i < c.x().shape.size(); ++i) {
    if (c.x().shape[i] % c.shape()[i] != 0) {
      c.refuse("has windows of several sizes here; choose an output size that divides the image's");
    }
    kernel.push_back(c.x().shape[i] / c.shape()[i]);
  }
  return c.operations().pool("MaxPool", c.node(), c.x(), window_of(c, kernel, {}, {0}, {1}));
}

// --- normalisation, attention ----------------------------------------------------------------------------------------

// A weight or bias of a normalisation, or what stands for none.
Value affine(const Call& c, const char* name, const Sizes& shape, double otherwise) {
  return c.is_none(name) && c.input(name) == nullptr ? c.builder().constant(at::full(shape, otherwise, at::kFloat))
                                                     : c.operand(name);
}

Value layer_norm(const Call& c) {
  c.builder().need(17);
  const Sizes shape = c.integers("normalized_shape");
  return c.builder().call(
      "LayerNormalization", {c.x().name, affine(c, "weight", shape, 1), affine(c, "bias", shape, 0)},
      {{"axis", -static_cast<int64_t>(shape.size())}, {"epsilon", static_cast<float>(c.real("eps"))}});
}

Value normalised_channels(const Call& c, const Value& x, const Value& scale, const Value& offset) {
  return c.builder().call("InstanceNormalization", {x, scale, offset},
                          {{"epsilon", static_cast<float>(c.real("eps"))}});
}

Value group_norm(const Call& c) {
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

Value batch_norm(const Call& c) {
  const Sizes channels{c.x().shape.at(1)};
  return c.builder().call("BatchNormalization",
                          {c.x().name, affine(c, "weight", channels, 1), affine(c, "bias", channels, 0),
                           c.operand("running_mean"), c.operand("running_var")},
                          {{"epsilon", static_cast<float>(c.real("eps"))}});
}

Value instance_norm(const Call& c) {
  if (!c.boolean("use_input_stats")) {
    return batch_norm(c);
  }
  const Sizes channels{c.x().shape.at(1)};
  return normalised_channels(c, c.x().name, affine(c, "weight", channels, 1), affine(c, "bias", channels, 0));
}

template <const char* kType>
Value over_dim(const Call& c) {
  return c.builder().call(kType, {c.x().name}, {{"axis", c.dim("dim")}});
}

constexpr char kSoftmax[] = "Softmax", kLogSoftmax[] = "LogSoftmax";

Value matmul(const Call& c) { return c.call("MatMul", c.operand("self"), c.operand(c.has("mat2") ? "mat2" : "other")); }

Value linear(const Call& c) {
  const Value turned = c.builder().call("Transpose", {c.operand("weight")}, {{"perm", Sizes{1, 0}}});
  const Value product = c.call("MatMul", c.operand("input"), turned);
  return c.is_none("bias") && c.input("bias") == nullptr ? product : c.call("Add", product, c.operand("bias"));
}

// softmax(q·kᵀ·scale + mask)·v
Value attention(const Call& c) {
  const OnnxValue *query = c.input("query"), *key = c.input("key"), *value = c.input("value");
  if (query == nullptr || key == nullptr || value == nullptr || (c.has("enable_gqa") && c.boolean("enable_gqa"))) {
    c.refuse("is written for queries, keys and values that are computed, each of them for each head");
  }
  const auto rank = static_cast<int64_t>(key->shape.size());
  Sizes order(rank);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[rank - 1], order[rank - 2]);
  const Value turned = c.builder().call("Transpose", {key->name}, {{"perm", order}});
  const double scale = c.real_or("scale", 1 / std::sqrt(static_cast<double>(query->shape.back())));
  Value scores = c.call("MatMul", c.times(query->name, scale), turned);
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

Value prelu(const Call& c) {
  const c10::IValue& slope = c.argument("weight");
  if (!slope.isTensor()) {
    c.refuse("takes a slope that is computed; make it a parameter");
  }
  Sizes over(std::max<int64_t>(1, c.rank() - 1), 1);
  over[0] = slope.toTensor().numel();
  return c.call("PRelu", c.x().name, c.builder().constant(slope.toTensor().to(at::kFloat).reshape(over)));
}

const std::unordered_map<std::string, Value (*)(const Call&)>& writers() {
  static const std::unordered_map<std::string, Value (*)(const Call&)> table{
      {"view", view},
      {"reshape", view},
      {"flatten", to_shape},
      {"unflatten", to_shape},
      {"permute", permute},
      {"transpose", transpose},
      {"t", t},
      {"unsqueeze", unsqueeze},
      {"squeeze", squeeze},
      {"slice", slice},
      {"select", select},
      {"narrow", narrow},
      {"index_select", index_select},
      {"expand", expand},
      {"expand_as", expand},
      {"repeat", gathered},
      {"flip", gathered},
      {"roll", gathered},
      {"pixel_shuffle", pixel_shuffle},
      {"pixel_unshuffle", pixel_unshuffle},
      {"channel_shuffle", channel_shuffle},
      {"upsample_nearest1d", upsample_nearest},
      {"upsample_nearest2d", upsample_nearest},
      {"constant_pad_nd", constant_pad},
      {"reflection_pad2d", reflection_pad},
      {"replication_pad2d", replication_pad},
      {"pad", pad},
      {"adaptive_max_pool2d", adaptive_max_pool},
      {"max_pool1d", max_pool1d},
      {"amax", over_dims<kMax>},
      {"max", over_dims<kMax>},
      {"dropout", same},
      {"feature_dropout", same},
      {"alpha_dropout", same},

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
      {"avg_pool1d", avg_pool},
      {"avg_pool2d", avg_pool},
      {"adaptive_avg_pool1d", separable},
      {"adaptive_avg_pool2d", separable},
      {"upsample_bilinear2d", upsample_linear},
      {"upsample_bicubic2d", separable},
      {"zeros_like", zeros_like},
      {"ones_like", ones_like},
  };
  return table;
}

}  // namespace

Value write_onnx_call(OnnxOperations& operations, const Node& node, const std::vector<OnnxValue>& inputs) {
  const std::string& op = node.call->op;
  const auto found = writers().find(op.substr(op.rfind(':') + 1));
  TORCH_CHECK_VALUE(found != writers().end(), "torchslim::save_onnx: layer '", node.layer, "': ", op,
                    " has no form in ONNX that is written yet; save a .ptl file, or keep it out of the network");
  return found->second(Call(operations, node, inputs));
}

}  // namespace torchslim::deploy
