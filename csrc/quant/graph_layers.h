// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/options/batchnorm.h>
#include <torchslim/graph/graph.h>
#include <torchslim/graph/transposed_weight.h>
#include <torchslim/quant/layers.h>

#include <memory>
#include <optional>
#include <string>

// The layers of a `PreparedGraph`: their tensors belong to the captured module.

namespace torchslim::quant {

/// A batch norm over tensors that exist already.
class GraphBatchNormImpl : public torch::nn::Module {
 public:
  /// Takes the tensors of a batch norm node; `batches_tracked`, int64 (), may be undefined.
  ///   registers  whether they become parameters and buffers of this module; if not, they are another's
  GraphBatchNormImpl(const graph::Node& node, const at::Tensor& batches_tracked, bool registers);
  at::Tensor forward(const at::Tensor& x);
  void reset_running_stats();
  BatchNormTensors tensors() const { return {weight, bias, running_mean, running_var, options.eps()}; }

  torch::nn::BatchNormOptions options;
  at::Tensor weight, bias, running_mean, running_var, num_batches_tracked;
};

/// A convolution or linear layer, with the batch norm behind it, or a batch norm behind no layer.
class GraphLayerImpl : public torch::nn::Module, public QuantWeightLayer {
 public:
  GraphLayerImpl(const graph::Node& node, std::shared_ptr<GraphBatchNormImpl> batch_norm, Activation activation);
  QuantTensor forward(const QuantTensor& x);
  at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const;

  bool is_batch_norm() const { return node_.kind == graph::OpKind::kBatchNorm2d; }
  const graph::Window& window() const { return node_.window; }

  bool is_transposed() const { return graph::is_transposed(node_.kind); }
  /// Returns the weight with output channels first; gradients pass to the parameter.
  at::Tensor weight() const { return graph::weight_by_outputs(node_); }
  const at::Tensor& bias() const { return node_.bias.value; }
  std::optional<BatchNormTensors> batch_norm() const;

 private:
  friend class PreparedGraphImpl;
  void add_quantizer(torch::nn::Module& owner, const std::shared_ptr<torch::nn::Module>& quantizer) override;
  torch::nn::Module& weight_owner() override { return *this; }
  at::Tensor own_weight() override { return weight(); }

  graph::Node node_;
  std::shared_ptr<GraphBatchNormImpl> batch_norm_;  // null: none; a child of another module
};

/// What rounds the result of an operation that needs no more than that.
class GraphRounding : public QuantLayer {
 public:
  GraphRounding() : QuantLayer(Activation::kNone) {}
  QuantTensor forward(const at::Tensor& x) { return finish(x); }

 private:
  void add_quantizer(torch::nn::Module&, const std::shared_ptr<torch::nn::Module>&) override {}
};

}  // namespace torchslim::quant
