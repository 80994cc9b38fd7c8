// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/graph/graph.h>

#include <unordered_map>
#include <vector>

#include "deploy/torchscript_builder.h"

namespace torchslim::deploy {

/// Writes operations of float graphs as calls of aten:: operators; their tensors lie in one storage, each once.
class FloatOperations {
 public:
  using Value = TorchScriptBuilder::Value;

  /// `nodes` are those that `write` will be given.
  FloatOperations(TorchScriptBuilder& builder, const std::vector<const graph::Node*>& nodes);

  /// Appends `node`, with `inputs` for the nodes that it reads, and returns its result.
  /// Throws c10::ValueError for a batch norm or a fake_quantize: folded, or refused, before.
  Value* write(const graph::Node& node, const std::vector<Value*>& inputs);

 private:
  Value* write_attention(const graph::AtenCall& call, const std::vector<Value*>& inputs);
  Value* write_call(const graph::AtenCall& call, const std::vector<Value*>& inputs);
  torch::jit::NamedValue argument(const graph::AtenCall& call, size_t position);
  torch::jit::NamedValue bias(const graph::Node& node);
  Value* stored(const at::Tensor& tensor);

  TorchScriptBuilder& builder_;
  SharedStorage storage_;
  std::unordered_map<const c10::TensorImpl*, Value*> values_;  // of the tensors that are stored
};

}  // namespace torchslim::deploy
