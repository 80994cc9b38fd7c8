// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/torchscript_builder.h"

#include <ATen/ops/zeros.h>

#include <sstream>

namespace torchslim::deploy {

TorchScriptBuilder::TorchScriptBuilder() : module_("Net"), graph_(std::make_shared<torch::jit::Graph>()) {
  self_ = graph_->addInput("self")->setType(module_._ivalue()->type());
  input_ = graph_->addInput("x")->setType(c10::TensorType::get());
}

TorchScriptBuilder::Value* TorchScriptBuilder::attribute(c10::IValue value) {
  const std::string name = "w" + std::to_string(attributes_++);
  // The type of a tensor value is specialised to its shape, which cannot be saved.
  const c10::TypePtr type = value.isTensor() ? c10::TensorType::get() : value.type();
  module_.register_attribute(name, type, std::move(value));
  return graph_->insertGetAttr(self_, name);
}

TorchScriptBuilder::Value* TorchScriptBuilder::call_values(const char* name,
                                                           const std::vector<torch::jit::NamedValue>& arguments,
                                                           const std::vector<torch::jit::NamedValue>& named) {
  Value* result = graph_->insert(c10::Symbol::fromQualString(name), arguments, named);
  if (result->type()->kind() != c10::TypeKind::TupleType) {
    return result;
  }
  return graph_->insertNode(graph_->createTupleUnpack(result))->output(0);
}

TorchScriptBuilder::Value* TorchScriptBuilder::list(const std::vector<Value*>& elements) {
  return graph_->insertNode(graph_->createList(elements.at(0)->type(), elements))->output();
}

TorchScriptBuilder::Value* TorchScriptBuilder::number(int64_t value) { return graph_->insertConstant(value); }

torch::jit::NamedValue TorchScriptBuilder::named(const std::string& name, const torch::jit::NamedValue& argument) {
  return {name, argument.value(*graph_)};
}

void TorchScriptBuilder::finish(Value* result) {
  graph_->registerOutput(result);
  graph_->lint();
  auto forward = module_._ivalue()->compilation_unit()->create_function(
      c10::QualifiedName(*module_.type()->name(), "forward"), graph_);
  module_.type()->addMethod(forward);
}

std::string TorchScriptBuilder::serialize(const std::unordered_map<std::string, std::string>& extra) const {
  std::ostringstream stream;  // a file would put its own name into every record
  module_._save_for_mobile(stream, extra);
  return std::move(stream).str();
}

SharedStorage::SharedStorage(int64_t size, at::ScalarType dtype)
    : base_(at::zeros({size}, at::TensorOptions().dtype(dtype))) {}

at::Tensor SharedStorage::take(int64_t numel) {
  at::Tensor taken = base_.narrow(0, used_, numel);
  used_ += numel;
  return taken;
}

}  // namespace torchslim::deploy
