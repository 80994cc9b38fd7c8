// SPDX-License-Identifier: BSD-3-Clause
// Operators of ATen's that move elements or resize images, as operators of ONNX.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <torchslim/graph/interpret.h>

#include <limits>
#include <numeric>

#include "deploy/onnx_call.h"

namespace torchslim::deploy {
namespace {

using Value = OnnxBuilder::Value;
using Sizes = std::vector<int64_t>;

// --- moves ---------------------------------------------------------------------------------------------------------

Value same(const OnnxCall& c) { return c.x().name; }

// The element of a new shape that holds the batch.
int64_t batch_place(const OnnxCall& c, const char* name) {
  if (!c.node().call->batch_sizes.empty()) {
    return static_cast<int64_t>(c.node().call->batch_sizes.front().second);
  }
  const Sizes asked = c.integers(name);
  const auto open = std::find(asked.begin(), asked.end(), -1);
  return open == asked.end() ? 0 : open - asked.begin();
}

Value view(const OnnxCall& c) {
  return c.operations().reshape(c.x().name, c.shape(), batch_place(c, c.has("shape") ? "shape" : "size"));
}

Value to_shape(const OnnxCall& c) { return c.operations().reshape(c.x().name, c.shape()); }

Value transposed(const OnnxCall& c, const Sizes& order) {
  return c.builder().call("Transpose", {c.x().name}, {{"perm", order}});
}

Value permute(const OnnxCall& c) {
  Sizes order = c.integers("dims");
  for (int64_t& dim : order) {
    dim = c.wrapped(dim);
  }
  return transposed(c, order);
}

Value transpose(const OnnxCall& c) {
  Sizes order(c.rank());
  std::iota(order.begin(), order.end(), 0);
  std::swap(order.at(c.dim("dim0")), order.at(c.dim("dim1")));
  return transposed(c, order);
}

Value t(const OnnxCall& c) { return c.rank() < 2 ? same(c) : transposed(c, {1, 0}); }

Value unsqueeze(const OnnxCall& c) {
  const int64_t dim = c.integer("dim");
  return c.call("Unsqueeze", c.x().name, c.builder().constant(Sizes{dim < 0 ? dim + c.rank() + 1 : dim}));
}

Value squeeze(const OnnxCall& c) {
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

Value sliced(const OnnxCall& c, int64_t dim, int64_t begin, int64_t end, int64_t step) {
  const auto list = [&](int64_t number) { return c.builder().constant(Sizes{number}); };
  return c.call("Slice", c.x().name, list(begin), list(end), list(dim), list(step));
}

Value slice(const OnnxCall& c) {
  const int64_t begin = c.is_none("start") ? 0 : c.integer("start");
  const int64_t end = c.is_none("end") ? std::numeric_limits<int64_t>::max() : c.integer("end");
  return sliced(c, c.dim("dim"), begin, end, c.integer("step"));
}

Value narrow(const OnnxCall& c) {
  const int64_t start = c.integer("start"), dim = c.dim("dim");
  const int64_t begin = start < 0 ? start + c.x().shape.at(dim) : start;
  return sliced(c, dim, begin, begin + c.integer("length"), 1);
}

Value select(const OnnxCall& c) {
  const Value index = c.builder().constant(at::full({}, c.integer("index"), at::kLong));
  return c.builder().call("Gather", {c.x().name, index}, {{"axis", c.dim("dim")}});
}

Value index_select(const OnnxCall& c) {
  const c10::IValue& index = c.argument("index");
  if (!index.isTensor()) {
    c.refuse("takes an index that is computed; make it a buffer of the model");
  }
  const Value numbers = c.builder().constant(index.toTensor().to(at::kLong));
  return c.builder().call("Gather", {c.x().name, numbers}, {{"axis", c.dim("dim")}});
}

Value expand(const OnnxCall& c) {
  Sizes shape = c.shape();
  const size_t more = shape.size() - c.x().shape.size();
  for (size_t i = more; i < shape.size(); ++i) {
    shape[i] = shape[i] == c.x().shape[i - more] ? 1 : shape[i];  // as large as it is
  }
  return c.call("Expand", c.x().name, c.builder().constant(shape));
}

// Pads are given from the last dimension on; ONNX wants all begins, then all ends.
Value padded(const OnnxCall& c, const std::string& mode, const Value& value) {
  const Sizes pads = c.integers(c.has("pad") ? "pad" : "padding");
  Sizes sides(2 * c.rank());
  for (size_t i = 0; i < pads.size() / 2; ++i) {
    const int64_t dim = c.rank() - 1 - static_cast<int64_t>(i);
    sides.at(dim) = pads[2 * i];
    sides.at(dim + c.rank()) = pads[2 * i + 1];
  }
  std::vector<Value> inputs{c.x().name, c.builder().constant(sides)};
  if (mode == "constant") {
    inputs.push_back(value);
  }
  return c.builder().call("Pad", inputs, {{"mode", mode}});
}

Value constant_pad(const OnnxCall& c) { return padded(c, "constant", c.number(c.real("value"))); }
Value reflection_pad(const OnnxCall& c) { return padded(c, "reflect", ""); }
Value replication_pad(const OnnxCall& c) { return padded(c, "edge", ""); }

// Each side gets what lies at the other end, one dimension after the other.
Value circular_pad(const OnnxCall& c) {
  const Sizes pads = c.integers("pad");
  const auto list = [&](int64_t number) { return c.builder().constant(Sizes{number}); };
  Value x = c.x().name;
  for (size_t i = 0; i < pads.size() / 2; ++i) {
    const int64_t dim = c.rank() - 1 - static_cast<int64_t>(i), size = c.x().shape.at(dim);
    const int64_t before = pads[2 * i], after = pads[2 * i + 1];
    if (before < 0 || after < 0) {
      c.refuse("cuts off and pads in a circle at once; slice the image first");
    }
    std::vector<Value> parts{x};
    if (before > 0) {
      parts.insert(parts.begin(), c.call("Slice", x, list(size - before), list(size), list(dim)));
    }
    if (after > 0) {
      parts.push_back(c.call("Slice", x, list(0), list(after), list(dim)));
    }
    x = parts.size() == 1 ? x : c.builder().call("Concat", parts, {{"axis", dim}});
  }
  return x;
}

Value pad(const OnnxCall& c) {
  const std::string mode = c.argument("mode").toStringRef();
  if (mode == "circular") {
    return circular_pad(c);
  }
  return padded(c, mode == "replicate" ? "edge" : mode, c.number(c.real_or("value", 0)));
}

Value pixel_shuffle(const OnnxCall& c) {
  return c.builder().call("DepthToSpace", {c.x().name},
                          {{"blocksize", c.integer("upscale_factor")}, {"mode", std::string("CRD")}});
}

Value reordered(const OnnxCall& c, const Sizes& apart, const Sizes& order) {
  const Value pieces = c.operations().reshape(c.x().name, apart);
  const Value turned = c.builder().call("Transpose", {pieces}, {{"perm", order}});
  return c.operations().reshape(turned, c.shape());
}

Value pixel_unshuffle(const OnnxCall& c) {
  const int64_t r = c.integer("downscale_factor");
  const Sizes& in = c.x().shape;
  if (in.size() != 4) {
    c.refuse("is written for (N, C, H, W) only");
  }
  return reordered(c, {in[0], in[1], in[2] / r, r, in[3] / r, r}, {0, 1, 3, 5, 2, 4});
}

Value channel_shuffle(const OnnxCall& c) {
  Sizes apart = c.x().shape, order(apart.size() + 1);
  const int64_t groups = c.integer("groups");
  apart[1] /= groups;
  apart.insert(apart.begin() + 1, groups);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[1], order[2]);
  return reordered(c, apart, order);
}

// What only moves elements, found out by moving their numbers: a look-up in each image's elements.
Value gathered(const OnnxCall& c) {
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

Value separable(const OnnxCall& c) { return c.operations().separable(c.node(), c.x()); }

bool is_multiple(const OnnxCall& c) {
  const Sizes &in = c.x().shape, &out = c.shape();
  for (size_t i = 2; i < in.size(); ++i) {
    if (out[i] % in[i] != 0) {
      return false;
    }
  }
  return true;
}

Value resized(const OnnxCall& c, const std::string& mode, const std::string& places, const std::string& rounding) {
  at::Tensor scales = at::ones({c.rank()});
  for (int64_t i = 2; i < c.rank(); ++i) {
    scales[i] = static_cast<float>(c.shape()[i]) / static_cast<float>(c.x().shape[i]);
  }
  return c.builder().call("Resize", {c.x().name, "", c.builder().constant(scales)},
                          {{"mode", mode}, {"coordinate_transformation_mode", places}, {"nearest_mode", rounding}});
}

Value upsample_nearest(const OnnxCall& c) {
  return is_multiple(c) ? resized(c, "nearest", "asymmetric", "floor") : gathered(c);
}

Value upsample_linear(const OnnxCall& c) {
  const bool corners = c.boolean("align_corners");
  return is_multiple(c) && !corners ? resized(c, "linear", "pytorch_half_pixel", "round_prefer_floor") : separable(c);
}

}  // namespace

bool pads_with_zeros(const graph::Node& node) {
  if (node.kind != graph::OpKind::kAten || node.call->role != graph::AtenRole::kCopies) {
    return false;
  }
  const bool pads = node.call->op == "aten::pad" && node.call->arguments.at(2).toStringRef() == "constant";
  return pads || node.call->op == "aten::constant_pad_nd";
}

Value pad_codes(OnnxOperations& operations, const graph::Node& node, const OnnxValue& codes, int64_t zero_point) {
  const std::vector<OnnxValue> inputs{codes};  // which the call refers to
  const OnnxCall call(operations, node, inputs);
  return padded(call, "constant", operations.builder().constant(at::full({}, zero_point, at::kByte)));
}

const OnnxWriters& onnx_moves() {
  static const OnnxWriters table{
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
      {"upsample_bilinear2d", upsample_linear},
      {"upsample_bicubic2d", separable},
      {"adaptive_avg_pool1d", separable},
      {"adaptive_avg_pool2d", separable},
      {"constant_pad_nd", constant_pad},
      {"reflection_pad2d", reflection_pad},
      {"replication_pad2d", replication_pad},
      {"reflection_pad1d", reflection_pad},
      {"replication_pad1d", replication_pad},
      {"pad", pad},
      {"dropout", same},
      {"feature_dropout", same},
      {"alpha_dropout", same},
  };
  return table;
}

}  // namespace torchslim::deploy
