// SPDX-License-Identifier: BSD-3-Clause
#include "quant/graph_layers.h"

#include <ATen/ops/batch_norm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <torchslim/graph/interpret.h>

#include "quant/weighted_form.h"

namespace torchslim::quant {

GraphBatchNormImpl::GraphBatchNormImpl(const graph::Node& node, const at::Tensor& batches_tracked, bool registers)
    : torch::nn::Module("GraphBatchNorm"),
      options(torch::nn::BatchNormOptions(node.running_mean.value.numel()).eps(node.eps).momentum(node.momentum)),
      weight(node.weight.value),
      bias(node.bias.value),
      running_mean(node.running_mean.value),
      running_var(node.running_var.value),
      num_batches_tracked(batches_tracked.defined() ? batches_tracked : at::scalar_tensor(0, at::kLong)) {
  if (!registers) {
    return;
  }
  if (!node.weight.name.empty()) {
    register_parameter("weight", weight, weight.requires_grad());
    register_parameter("bias", bias, bias.requires_grad());
  }
  register_buffer("running_mean", running_mean);
  register_buffer("running_var", running_var);
  register_buffer("num_batches_tracked", num_batches_tracked);
}

at::Tensor GraphBatchNormImpl::forward(const at::Tensor& x) {
  double momentum = options.momentum().value_or(0);
  if (is_training()) {
    num_batches_tracked.add_(1);
    if (!options.momentum()) {  // the plain average of all batches
      momentum = 1 / num_batches_tracked.item<double>();
    }
  }
  return at::batch_norm(x, weight, bias, running_mean, running_var, is_training(), momentum, options.eps(),
                        /*cudnn_enabled=*/true);
}

void GraphBatchNormImpl::reset_running_stats() {
  running_mean.zero_();
  running_var.fill_(1);
  num_batches_tracked.zero_();
}

GraphLayerImpl::GraphLayerImpl(const graph::Node& node, std::shared_ptr<GraphBatchNormImpl> batch_norm,
                               Activation activation)
    : torch::nn::Module("GraphLayer"), QuantWeightLayer(activation), node_(node), batch_norm_(std::move(batch_norm)) {
  if (is_batch_norm()) {
    node_.weight.value = at::ones({node.running_mean.value.numel(), 1, 1, 1});
    node_.bias = {};
  }
}

void GraphLayerImpl::add_quantizer(torch::nn::Module&, const std::shared_ptr<torch::nn::Module>& quantizer) {
  register_module("output_fake_quantize", quantizer);
}

std::optional<BatchNormTensors> GraphLayerImpl::batch_norm() const {
  return batch_norm_ == nullptr ? std::nullopt : std::optional(batch_norm_->tensors());
}

at::Tensor GraphLayerImpl::product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const {
  if (is_batch_norm()) {
    const std::array<int64_t, 2> one{1, 1}, none{0, 0};
    return at::conv2d(x, weight, bias, one, none, one, weight.size(0));
  }
  graph::Node node = node_;
  node.weight.value = is_transposed() ? graph::transposed_weight(weight, node.window.groups) : weight;
  node.bias.value = bias;
  return graph::run_node(node, {x}, x.size(0));
}

QuantTensor GraphLayerImpl::forward(const QuantTensor& x) {
  const std::optional<BatchNormTensors> norm = batch_norm();
  const at::Tensor own = weight();
  const detail::WeightedTensors tensors{own, node_.bias.value, norm, layer_name_, weight_quantizer()};
  const detail::WeightedParts parts{
      [this](const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
        return product(input, weight, bias);
      },
      [this](const at::Tensor& y) { return batch_norm_ == nullptr ? y : batch_norm_->forward(y); },
      node_.kind == graph::OpKind::kLinear ? -1 : 1,
      is_training(),
      rounds(),
      fixed_scale()};
  if (!is_batch_norm()) {
    show_input(x.value);
    return finish(detail::run_weighted(tensors, parts, x));
  }
  // A weight of ones lies on its grid: the batch norm alone gives the same, but in integers and where a trace must show them.
  const bool alone = !detail::is_tracing() && (batch_norm_->is_training() || is_training());
  return finish(alone ? batch_norm_->forward(x.value) : detail::run_weighted(tensors, parts, x));
}

}  // namespace torchslim::quant
