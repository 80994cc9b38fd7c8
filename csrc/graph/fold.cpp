// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/zeros_like.h>
#include <torchslim/graph/fold.h>
#include <torchslim/graph/transposed_weight.h>

namespace torchslim::graph {
namespace {

// A batch norm as y = factor·x + offset, float64 (C).
struct Affine {
  at::Tensor factor;
  at::Tensor offset;
};

at::Tensor exact(const NamedTensor& tensor) { return tensor.value.to(at::kDouble); }

Affine affine_of(const Node& norm) {
  const at::Tensor factor = exact(norm.weight) / at::sqrt(exact(norm.running_var) + norm.eps);
  return {factor, exact(norm.bias) - exact(norm.running_mean) * factor};
}

at::Tensor rounded(const at::Tensor& value, const Node& norm) {
  at::Tensor result = value.to(at::kFloat);
  TORCH_CHECK_VALUE(at::isfinite(result).all().item<bool>(), "torchslim::graph::fold_batch_norms: batch norm `",
                    norm.layer, "` gives values that are not finite; check its running_var and weight");
  return result;
}

// Factors of channels in the shape that broadcasts over a weight with output channels first.
at::Tensor over_outputs(const at::Tensor& factor, int64_t dims) {
  std::vector<int64_t> shape(dims, 1);
  shape[0] = factor.numel();
  return factor.reshape(shape);
}

void fold_into(Node& layer, const Node& norm) {
  const Affine affine = affine_of(norm);
  const at::Tensor weight = weight_by_outputs(layer).to(at::kDouble);
  const at::Tensor scaled = rounded(weight * over_outputs(affine.factor, weight.dim()), norm);
  layer.weight.value = is_transposed(layer.kind) ? transposed_weight(scaled, layer.window.groups) : scaled;
  const at::Tensor bias = layer.bias.defined() ? exact(layer.bias) * affine.factor : at::zeros_like(affine.offset);
  layer.bias.value = rounded(bias + affine.offset, norm);
  if (layer.bias.name.empty()) {
    layer.bias.name = norm.bias.name;
  }
}

// Whether each output channel of `layer` is a channel of the batch norm behind it.
bool takes_batch_norm(const Node& layer) {
  return is_convolution(layer.kind) || (layer.kind == OpKind::kLinear && layer.shape.size() == 2);
}

Node depthwise(const Node& norm) {
  const Affine affine = affine_of(norm);
  Node node = norm;
  const auto dims = static_cast<int64_t>(norm.shape.size());
  node.kind = dims == 3 ? OpKind::kConv1d : OpKind::kConv2d;
  node.window = {};
  node.window.groups = affine.factor.numel();
  node.weight.value = rounded(over_outputs(affine.factor, dims), norm);
  node.bias.value = rounded(affine.offset, norm);
  node.running_mean = {};
  node.running_var = {};
  return node;
}

}  // namespace

Graph fold_batch_norms(const Graph& graph) {
  const at::NoGradGuard no_grad;
  Graph folded;
  std::vector<int64_t> moved;  // new number of each old node
  for (const Node& node : graph.nodes) {
    TORCH_CHECK_VALUE(!node.grid && !node.weight_grid,
                      "torchslim::graph::fold_batch_norms: expected a float graph, got a "
                      "fake-quantised value in layer `",
                      node.layer, "`; deploy::lower folds those");
    Node copy = node;
    for (int64_t& input : copy.inputs) {
      input = moved.at(input);
    }
    if (node.kind == OpKind::kBatchNorm2d) {
      const int64_t before = node.inputs.at(0);
      if (takes_batch_norm(graph.nodes[before]) && graph.users(before).size() == 1) {
        fold_into(folded.nodes[moved[before]], node);
        moved.push_back(moved[before]);
        continue;
      }
      if (node.shape.size() > 2) {
        copy = depthwise(copy);
      }
    }
    moved.push_back(static_cast<int64_t>(folded.nodes.size()));
    folded.nodes.push_back(std::move(copy));
  }
  return folded;
}

}  // namespace torchslim::graph
