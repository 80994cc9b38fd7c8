// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/onnx_builder.h"

#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <torchslim/version.h>

#include <algorithm>

#include "deploy/onnx_file.h"

namespace torchslim::deploy {
namespace {

// TensorProto.DataType
constexpr int64_t kFloat = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kInt64 = 7, kInt4 = 22;

// AttributeProto.AttributeType
constexpr int64_t kFloatAttribute = 1, kIntAttribute = 2, kStringAttribute = 3, kIntsAttribute = 7;

int64_t type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return kFloat;
    case at::kByte:
      return kUint8;
    case at::kChar:
      return kInt8;
    case at::kInt:
      return kInt32;
    case at::kLong:
      return kInt64;
    default:
      TORCH_CHECK_VALUE(false, "torchslim::save_onnx: a tensor of dtype ", tensor.scalar_type(),
                        " cannot be written; give the model float32 weights");
  }
}

// The version of the file's format that came with an opset (ONNX, docs/Versioning.md).
int64_t ir_version(int64_t opset) { return opset >= 21 ? 10 : opset >= 19 ? 9 : opset >= 15 ? 8 : 7; }

ProtobufMessage attribute_message(const OnnxBuilder::Attribute& attribute) {
  ProtobufMessage message;
  message.bytes(1, attribute.first);
  if (const auto* number = std::get_if<int64_t>(&attribute.second)) {
    return message.number(3, *number).number(20, kIntAttribute);
  }
  if (const auto* real = std::get_if<float>(&attribute.second)) {
    return message.real(2, *real).number(20, kFloatAttribute);
  }
  if (const auto* text = std::get_if<std::string>(&attribute.second)) {
    return message.bytes(4, *text).number(20, kStringAttribute);
  }
  for (const int64_t number : std::get<std::vector<int64_t>>(attribute.second)) {
    message.number(8, number);
  }
  return message.number(20, kIntsAttribute);
}

}  // namespace

OnnxBuilder::OnnxBuilder(int64_t opset, const std::vector<int64_t>& shape)
    : opset_(opset), needed_(kLeastOpset), input_(described("input", shape)) {}

ProtobufMessage OnnxBuilder::described(const Value& name, const std::vector<int64_t>& shape) {
  ProtobufMessage sizes;
  for (size_t i = 0; i < shape.size(); ++i) {
    ProtobufMessage size;
    if (i == 0) {
      size.bytes(2, "batch");
    } else {
      size.number(1, shape[i]);
    }
    sizes.message(1, size);
  }
  const auto tensor = ProtobufMessage().number(1, kFloat).message(2, sizes);
  return ProtobufMessage().bytes(1, name).message(2, ProtobufMessage().message(1, tensor));
}

OnnxBuilder::Value OnnxBuilder::fresh(const std::string& base) {
  const int64_t before = names_[base]++;
  return before == 0 ? base : base + "." + std::to_string(before);
}

OnnxBuilder::Value OnnxBuilder::stored(int64_t type, at::IntArrayRef sizes, const std::string& data, bool shared) {
  ProtobufMessage tensor;
  for (const int64_t size : sizes) {
    tensor.number(1, size);
  }
  tensor.number(2, type).bytes(9, data);
  const auto known = shared ? shared_.find(tensor.text()) : shared_.end();
  if (known != shared_.end()) {
    return known->second;
  }
  Value name = fresh((layer_.empty() ? "" : layer_ + "/") + "constant");
  if (shared) {
    shared_.emplace(tensor.text(), name);
  }
  tensor.bytes(8, name);
  constants_.message(5, tensor);
  ++count_;
  return name;
}

OnnxBuilder::Value OnnxBuilder::constant(const at::Tensor& tensor, bool shared) {
  const at::Tensor whole = tensor.detach().contiguous();
  return stored(type_of(whole), whole.sizes(),
                std::string(static_cast<const char*>(whole.const_data_ptr()), whole.nbytes()), shared);
}

OnnxBuilder::Value OnnxBuilder::constant(float number) { return constant(at::tensor(number, at::kFloat).squeeze()); }

OnnxBuilder::Value OnnxBuilder::constant(const std::vector<int64_t>& numbers) {
  return constant(at::tensor(numbers, at::kLong));
}

OnnxBuilder::Value OnnxBuilder::constant_int4(const at::Tensor& codes) {
  need(kInt4Opset);
  const at::Tensor whole = codes.contiguous();
  const auto* numbers = whole.const_data_ptr<int8_t>();
  std::string data((whole.numel() + 1) / 2, '\0');
  for (int64_t i = 0; i < whole.numel(); ++i) {
    const auto half = static_cast<unsigned>(numbers[i]) & 0xFU;
    data[i / 2] = static_cast<char>(static_cast<unsigned char>(data[i / 2]) | half << (i % 2 == 0 ? 0 : 4));
  }
  return stored(kInt4, whole.sizes(), data, /*shared=*/false);
}

OnnxBuilder::Value OnnxBuilder::call(const char* type, const std::vector<Value>& inputs,
                                     const std::vector<Attribute>& attributes) {
  ProtobufMessage node;
  for (const Value& input : inputs) {
    node.bytes(1, input);
  }
  Value result = fresh((layer_.empty() ? "" : layer_ + "/") + type);
  node.bytes(2, result).bytes(3, result).bytes(4, type);
  for (const Attribute& attribute : attributes) {
    node.message(5, attribute_message(attribute));
  }
  nodes_.message(1, node);
  return result;
}

void OnnxBuilder::finish(const Value& result, const std::vector<int64_t>& shape) {
  nodes_.message(1, ProtobufMessage().bytes(1, result).bytes(2, "output").bytes(3, "output").bytes(4, "Identity"));
  output_ = described("output", shape);
}

std::string OnnxBuilder::serialize(const std::vector<std::pair<std::string, std::string>>& metadata) const {
  const std::string graph = nodes_.text() + ProtobufMessage().bytes(2, "torchslim").text() + constants_.text() +
                            ProtobufMessage().message(11, input_).message(12, output_).text();
  ProtobufMessage model;
  model.number(1, ir_version(opset_)).bytes(2, "torchslim").bytes(3, TORCHSLIM_VERSION).bytes(7, graph);
  model.message(8, ProtobufMessage().bytes(1, "").number(2, opset_));
  for (const auto& [key, value] : metadata) {
    model.message(14, ProtobufMessage().bytes(1, key).bytes(2, value));
  }
  return model.text();
}

}  // namespace torchslim::deploy
