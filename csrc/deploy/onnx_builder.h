// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "deploy/protobuf.h"

namespace torchslim::deploy {

/// Writes an ONNX model with one float32 input "input" and one output "output", operator by operator. Field numbers are
/// those of onnx.proto (ONNX 1.x; the wire format is frozen).
class OnnxBuilder {
 public:
  using Value = std::string;  // names of values are what joins operators; "" is an input that is left out
  using Attribute = std::pair<const char*, std::variant<int64_t, float, std::string, std::vector<int64_t>>>;

  ///   opset  the version of the operators that will be written
  ///   shape  of the input; its first size is free
  OnnxBuilder(int64_t opset, const std::vector<int64_t>& shape);

  int64_t opset() const { return opset_; }

  /// Notes that what is written exists from `opset` on.
  void need(int64_t opset) { needed_ = std::max(needed_, opset); }

  /// The least version that has all that was written.
  int64_t needed() const { return needed_; }

  Value input() const { return "input"; }

  /// Names what follows after `layer`.
  void at(const std::string& layer) { layer_ = layer; }

  /// Stores a tensor (float32, int64, int32, int8, uint8) and returns its name; equal tensors are stored once if `shared`.
  Value constant(const at::Tensor& tensor, bool shared = true);
  Value constant(float number);
  Value constant(const std::vector<int64_t>& numbers);

  /// Stores int8 codes in [-8, 7] as INT4, two in a byte; never shared.
  Value constant_int4(const at::Tensor& codes);

  /// Appends operator `type` and returns its (first) result.
  Value call(const char* type, const std::vector<Value>& inputs, const std::vector<Attribute>& attributes = {});

  /// Ends the network with `result`, whose shape is `shape` but for the first size.
  void finish(const Value& result, const std::vector<int64_t>& shape);

  /// Returns the file's bytes; `metadata` goes into it by key.
  std::string serialize(const std::vector<std::pair<std::string, std::string>>& metadata) const;

  /// How many tensors are stored.
  int64_t constants() const { return count_; }

 private:
  Value stored(int64_t type, at::IntArrayRef sizes, const std::string& data, bool shared);
  Value fresh(const std::string& base);
  static ProtobufMessage described(const Value& name, const std::vector<int64_t>& shape);

  int64_t opset_;
  int64_t needed_;
  std::string layer_;
  std::unordered_map<std::string, int64_t> names_;  // a name, how often it was asked for
  ProtobufMessage nodes_;                           // field 1 of a GraphProto, repeated
  std::unordered_map<std::string, Value> shared_;   // constants by all but their names
  ProtobufMessage constants_;                       // field 5, repeated
  int64_t count_ = 0;
  ProtobufMessage input_, output_;
};

}  // namespace torchslim::deploy
