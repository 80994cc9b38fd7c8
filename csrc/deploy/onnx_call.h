// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include "deploy/onnx_operations.h"

namespace torchslim::deploy {

/// A call that is written: its arguments by the names of ATen's schema.
class OnnxCall {
 public:
  OnnxCall(OnnxOperations& operations, const graph::Node& node, const std::vector<OnnxValue>& inputs)
      : operations_(operations),
        node_(node),
        inputs_(inputs),
        schema_(c10::Dispatcher::singleton()
                    .findSchemaOrThrow(node.call->op.c_str(), node.call->overload.c_str())
                    .schema()) {}

  OnnxOperations& operations() const { return operations_; }
  OnnxBuilder& builder() const { return operations_.builder(); }
  const graph::Node& node() const { return node_; }
  const std::vector<OnnxValue>& inputs() const { return inputs_; }
  const OnnxValue& x() const { return inputs_.at(0); }
  const std::vector<int64_t>& shape() const { return node_.shape; }

  bool has(const char* name) const { return schema_.argumentIndexWithName(name).has_value(); }
  const c10::IValue& argument(const char* name) const {
    return node_.call->arguments.at(*schema_.argumentIndexWithName(name));
  }
  bool is_none(const char* name) const { return !has(name) || argument(name).isNone(); }
  int64_t integer(const char* name) const { return argument(name).toInt(); }
  bool boolean(const char* name) const { return argument(name).toBool(); }
  double real(const char* name) const { return argument(name).toScalar().toDouble(); }
  double real_or(const char* name, double otherwise) const { return is_none(name) ? otherwise : real(name); }
  std::vector<int64_t> integers(const char* name) const {
    const c10::IValue& value = argument(name);
    return value.isInt() ? std::vector<int64_t>{value.toInt()} : value.toIntVector();
  }

  // The input that stands in a place, if one does.
  const OnnxValue* input(const char* name) const {
    const auto place = static_cast<size_t>(*schema_.argumentIndexWithName(name));
    const auto& slots = node_.call->slots;
    const auto found = std::find(slots.begin(), slots.end(), place);
    return found == slots.end() ? nullptr : &inputs_[found - slots.begin()];
  }

  // An input, a tensor or a number as a value.
  OnnxBuilder::Value operand(const char* name) const {
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
  OnnxBuilder::Value call(const char* type, const Names&... names) const {
    return builder().call(type, {names...});
  }
  OnnxBuilder::Value number(double value) const { return builder().constant(static_cast<float>(value)); }
  OnnxBuilder::Value times(const OnnxBuilder::Value& value, double factor) const {
    return factor == 1 ? value : call("Mul", value, number(factor));
  }

  [[noreturn]] void refuse(const std::string& why) const {
    TORCH_CHECK_VALUE(false, "torchslim::save_onnx: layer '", node_.layer, "': ", node_.call->op, " ", why);
  }

 private:
  OnnxOperations& operations_;
  const graph::Node& node_;
  const std::vector<OnnxValue>& inputs_;
  const c10::FunctionSchema& schema_;
};

/// Functions that write a call, by the operator's name without "aten::".
using OnnxWriters = std::unordered_map<std::string, OnnxBuilder::Value (*)(const OnnxCall&)>;

/// Whether a call puts zeros around its input, and nothing else.
bool pads_with_zeros(const graph::Node& node);

/// Writes such a call on codes whose zero is `zero_point`: OpenVINO fails on one between QuantizeLinear and its inverse.
OnnxBuilder::Value pad_codes(OnnxOperations& operations, const graph::Node& node, const OnnxValue& codes,
                             int64_t zero_point);

/// Of operators that move elements or resize images.
const OnnxWriters& onnx_moves();

}  // namespace torchslim::deploy
