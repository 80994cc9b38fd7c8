// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/special_ndtr.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <torchslim/graph/capture.h>
#include <torchslim/quant/correct_bias_analytic.h>
#include <torchslim/quant/fake_quantize.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace torchslim::quant {
namespace {

using graph::Node;
using graph::OpKind;

constexpr const char* kAnalytic = "torchslim::quant::correct_bias_analytic";

at::Tensor normal_density(const at::Tensor& x) {
  return (x.square() * -0.5).exp_() * (1 / std::sqrt(2 * std::numbers::pi));
}

bool is_layer(const Node& node) { return graph::is_convolution(node.kind) || node.kind == OpKind::kLinear; }

// What is known of the channels of a node's result, (C); the mean is undefined where nothing is, the variance where only
// the mean is known.
Moments moments_after(const Node& node, const std::vector<Moments>& all) {
  const auto of_input = [&](size_t i) { return node.inputs.size() > i ? all[node.inputs[i]] : Moments{}; };
  const Moments x = of_input(0);
  switch (node.kind) {
    case OpKind::kBatchNorm2d:
      return {node.bias.value.to(at::kDouble), node.weight.value.to(at::kDouble).square()};
    case OpKind::kFakeQuantize:
      return x;
    case OpKind::kRelu:
    case OpKind::kRelu6: {
      const double high = node.kind == OpKind::kRelu6 ? 6 : std::numeric_limits<double>::infinity();
      return x.var.defined() ? clipped_normal(x.mean, x.var.sqrt(), 0, high) : Moments{};
    }
    case OpKind::kAdd: {
      const Moments y = of_input(1);
      const bool known = x.mean.defined() && y.mean.defined();
      return {known ? x.mean + y.mean : at::Tensor(),
              known && x.var.defined() && y.var.defined() ? x.var + y.var : at::Tensor()};
    }
    case OpKind::kAvgPool2d:
      return node.window.padding == std::array<int64_t, 2>{0, 0} ? Moments{x.mean, {}} : Moments{};
    case OpKind::kGlobalAvgPool:
      return {x.mean, {}};
    case OpKind::kFlatten:
      return x.mean.defined() ? Moments{x.mean.repeat_interleave(node.shape.back() / x.mean.numel()), {}} : Moments{};
    default:
      return {};
  }
}

// Returns Σ (w̃ − w)·E[x] of each output channel, float64 (O).
at::Tensor mean_shift(const Node& node, const at::Tensor& input_mean) {
  const auto& grid = *node.weight_grid;
  const auto& weight = node.weight.value;
  const auto rounded = fake_quantize(weight, grid.scale, grid.zero_point, grid.quant_min, grid.quant_max, grid.axis);
  auto error = (rounded.to(at::kDouble) - weight.to(at::kDouble));
  error = error.dim() > 2 ? error.flatten(2).sum(2) : error;  // (O, I / groups)
  const int64_t groups = node.window.groups;
  return (error.view({groups, -1, error.size(1)}) * input_mean.view({groups, 1, -1})).sum(2).flatten();
}

struct Correction {
  at::Tensor target;  // the model's own beta or bias
  at::Tensor offset;
};

// Returns where a shift of the layer at `index` is taken back, undefined if nowhere.
Correction correction_for(const graph::Graph& graph, int64_t index, const at::Tensor& shift) {
  const auto users = graph.users(index);
  const Node& node = graph.nodes[index];
  const Node* norm = users.size() == 1 ? &graph.nodes[users.front()] : nullptr;
  if (norm != nullptr && norm->kind == OpKind::kBatchNorm2d) {
    if (norm->bias.name.empty()) {
      return {};  // a constant that stands for no beta
    }
    const auto factor =
        norm->weight.value.to(at::kDouble) / (norm->running_var.value.to(at::kDouble) + norm->eps).sqrt();
    return {norm->bias.value, -shift * factor};
  }
  return {node.bias.value, -shift};
}

}  // namespace

Moments clipped_normal(const at::Tensor& mean, const at::Tensor& deviation, double low, double high) {
  TORCH_CHECK_VALUE(low < high && std::isfinite(low),
                    "torchslim::quant::clipped_normal: low must be finite and < high, got ", low, " and ", high);
  const auto m = mean.to(at::kDouble);
  const auto s = deviation.to(at::kDouble).clamp_min(std::numeric_limits<double>::min());
  const auto a = (low - m) / s, b = (high - m) / s;
  const auto below = at::special_ndtr(a), above = at::special_ndtr(-b);  // the shares that are clipped
  const auto inside = 1 - below - above;
  const auto edge = normal_density(a) - normal_density(b);
  // 0 instead of ∞·0 where nothing is clipped above.
  const bool ends = std::isfinite(high);
  const double top = ends ? high : 0;
  const auto first = m * inside + s * edge + low * below + top * above;
  const auto tail = (m + low) * normal_density(a) - (ends ? (m + high) * normal_density(b) : at::zeros_like(m));
  const auto second = (m.square() + s.square()) * inside + s * tail + low * low * below + top * top * above;
  return {first, (second - first.square()).clamp_min(0)};
}

std::vector<std::string> correct_bias_analytic(const graph::Graph& graph) {
  const at::NoGradGuard no_grad;
  const bool rounded = std::any_of(graph.nodes.begin(), graph.nodes.end(),
                                   [](const Node& node) { return node.weight_grid.has_value(); });
  TORCH_CHECK_VALUE(rounded, kAnalytic, ": no weight of the network is rounded; call prepare first");
  std::vector<Moments> moments;
  std::vector<Correction> corrections;
  std::vector<std::string> left;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    moments.push_back(moments_after(node, moments));
    if (!is_layer(node)) {
      continue;
    }
    const auto& input_mean = moments[node.inputs.front()].mean;
    Correction correction;
    // Where a convolution is transposed, pixels are sums of different numbers of inputs: no one shift fits them.
    if (input_mean.defined() && node.weight_grid && !graph::is_transposed(node.kind)) {
      correction = correction_for(graph, static_cast<int64_t>(i), mean_shift(node, input_mean));
    }
    correction.target.defined() ? corrections.push_back(correction) : left.push_back(node.layer);
  }
  for (const Correction& correction : corrections) {
    at::Tensor(correction.target).add_(correction.offset.to(correction.target.scalar_type()));
  }
  return left;
}

std::vector<std::string> correct_bias_analytic(const RunnableModule& model, const at::Tensor& example) {
  return correct_bias_analytic(graph::capture(model.module, model.forward, example));
}

}  // namespace torchslim::quant
