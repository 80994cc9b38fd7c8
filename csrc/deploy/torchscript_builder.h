// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace torchslim::deploy {

/// Writes a TorchScript module with one method `forward(x)`, operation by operation. Tensors become attributes, never
/// constants: constants can be stored twice.
class TorchScriptBuilder {
 public:
  using Value = torch::jit::Value;

  TorchScriptBuilder();

  /// The argument of `forward`.
  Value* input() { return input_; }

  /// Stores `value` as an attribute and returns it as a value of `forward`.
  Value* attribute(c10::IValue value);

  /// Appends operator `name` ("aten::relu") and returns its result. Arguments are values, numbers, bools,
  /// std::vector<int64_t>, IValue() for None, or NamedValue for one of these; in the schema's order.
  template <typename... Arguments>
  Value* call(const char* name, Arguments... arguments) {
    return call_values(name, {argument(arguments)...});
  }

  /// The same with lists of arguments, by position and by name. Of several results, the first.
  Value* call_values(const char* name, const std::vector<torch::jit::NamedValue>& arguments,
                     const std::vector<torch::jit::NamedValue>& named = {});

  /// Returns a list of tensors, or of numbers.
  Value* list(const std::vector<Value*>& elements);

  /// Returns a constant.
  Value* number(int64_t value);

  /// Returns `argument` as one that is given by name.
  torch::jit::NamedValue named(const std::string& name, const torch::jit::NamedValue& argument);

  /// Ends `forward` with `result`.
  void finish(Value* result);

  /// Returns the bytes of the module's lite interpreter file; `extra` holds further files by name. The bytes depend on
  /// nothing but what was built.
  std::string serialize(const std::unordered_map<std::string, std::string>& extra) const;

 private:
  template <typename T>
  static torch::jit::NamedValue argument(const T& value) {
    if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
      return torch::jit::NamedValue(c10::IValue(value));
    } else {
      return torch::jit::NamedValue(value);
    }
  }

  torch::jit::Module module_;
  std::shared_ptr<torch::jit::Graph> graph_;
  Value* self_;
  Value* input_;
  int64_t attributes_ = 0;
};

/// Cuts tensors from one storage, so that a file holds them as one record.
class SharedStorage {
 public:
  /// Makes room for `size` numbers of `dtype`, all zero.
  SharedStorage(int64_t size, at::ScalarType dtype);

  /// Returns the next `numel` numbers as a 1-d tensor.
  at::Tensor take(int64_t numel);

 private:
  at::Tensor base_;
  int64_t used_ = 0;
};

}  // namespace torchslim::deploy
