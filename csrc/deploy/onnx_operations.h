// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/graph/graph.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "deploy/onnx_builder.h"

namespace torchslim::deploy {

/// A value of the network that is written: its name in the file, and its shape for the example.
struct OnnxValue {
  OnnxBuilder::Value name;
  std::vector<int64_t> shape;
};

/// Writes graph nodes as operators of ONNX on floats. Any batch size runs.
class OnnxOperations {
 public:
  ///   batch  how many images the example holds
  OnnxOperations(OnnxBuilder& builder, int64_t batch) : builder_(builder), batch_(batch) {}

  /// Writes one node; its parameters become constants of the file. Throws c10::ValueError, naming the layer, for what ONNX
  /// has no operator for.
  OnnxBuilder::Value write(const graph::Node& node, const std::vector<OnnxValue>& inputs);

  /// Writes a convolution of any kind; `bias` may be "".
  OnnxBuilder::Value convolution(graph::OpKind kind, const graph::Window& window, const OnnxBuilder::Value& x,
                                 const OnnxBuilder::Value& weight, const OnnxBuilder::Value& bias);

  /// Writes a product with a weight (O, I), transposed, over the last dimension; `bias` may be "".
  OnnxBuilder::Value linear(const OnnxValue& x, const OnnxBuilder::Value& weight, const OnnxBuilder::Value& bias);

  /// Writes a maximum or average over windows; `node` says what shape comes out.
  OnnxBuilder::Value pool(const char* type, const graph::Node& node, const OnnxValue& x, const graph::Window& window);

  /// Writes an operation that is linear in the rows and in the columns of an image, whatever it is (bilinear, bicubic,
  /// averages over uneven windows), as two products with matrices that are found out by running it.
  OnnxBuilder::Value separable(const graph::Node& node, const OnnxValue& x);

  /// Gives `x` another shape, that of the example but for element `free`, which holds the batch.
  OnnxBuilder::Value reshape(const OnnxBuilder::Value& x, std::vector<int64_t> shape, int64_t free = 0);

  /// Writes the bounds of an activation; an infinite one is left out.
  OnnxBuilder::Value clip(const OnnxBuilder::Value& x, double low, double high);

  OnnxBuilder& builder() { return builder_; }
  int64_t batch() const { return batch_; }

 private:
  OnnxBuilder& builder_;
  int64_t batch_;
};

/// Writes a call of an operator of ATen's (node kind kAten).
OnnxBuilder::Value write_onnx_call(OnnxOperations& operations, const graph::Node& node,
                                   const std::vector<OnnxValue>& inputs);

}  // namespace torchslim::deploy
