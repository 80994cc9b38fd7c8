// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/torch.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/graph/graph.h>
#include <torchslim/quant/fold.h>

#include <cmath>

// Networks that exist only here, as graph::capture gives them for a prepared model: random weights, grids calibrated on
// a random batch.
namespace networks {

using torchslim::graph::Graph;
using torchslim::graph::Grid;
using torchslim::graph::Node;
using torchslim::graph::OpKind;

struct Conv {
  int64_t channels;
  int64_t kernel = 3;
  int64_t stride = 1;
  int64_t groups = 1;
  int64_t dilation = 1;
  bool batch_norm = true;
  bool bias = false;
};

/// Appends layers to a graph and runs each in floats on a calibration batch, which sets its grid.
class Builder {
 public:
  Builder(int64_t channels, int64_t size, bool quantised = true) : quantised_(quantised) {
    Node node;
    node.kind = OpKind::kInput;
    append(node, torch::randn({8, channels, size, size}));
    rounded("");
  }

  Graph graph;
  std::vector<at::Tensor> values;  // of every node, on the calibration batch

  int64_t last() const { return static_cast<int64_t>(graph.nodes.size()) - 1; }

  /// conv [batch norm] [activation] fake_quantize, reading node `from` (-1: the last)
  int64_t conv(Conv c, std::optional<OpKind> activation = OpKind::kRelu, int64_t from = -1) {
    const std::string layer = "conv" + std::to_string(graph.nodes.size());
    const at::Tensor x = value(from);
    Node node = reading(OpKind::kConv2d, from, layer);
    const int64_t inputs = x.size(1) / c.groups;
    node.weight.value = torch::randn({c.channels, inputs, c.kernel, c.kernel}) /
                        std::sqrt(static_cast<double>(inputs * c.kernel * c.kernel));
    node.weight.name = layer + ".weight";
    if (c.bias) {
      node.bias = {layer + ".bias", torch::randn({c.channels})};
    }
    const int64_t padding = c.dilation * (c.kernel / 2);
    node.window = {{c.kernel, c.kernel},
                   {c.stride, c.stride},
                   {padding, padding},
                   {c.dilation, c.dilation},
                   c.groups,
                   false,
                   true};
    weight_grid(node);
    const int64_t s = c.stride, d = c.dilation;
    append(node, at::conv2d(x, rounded_weight(node), node.bias.value, {s, s}, {padding, padding}, {d, d}, c.groups));
    if (c.batch_norm) {
      Node bn = reading(OpKind::kBatchNorm2d, -1, layer + "_bn");
      bn.weight.value = torch::randn({c.channels});
      bn.weight.value[0] = 0.0;  // a channel that training switched off
      bn.bias.value = torch::randn({c.channels}) * 0.3;
      bn.running_mean.value = values.back().mean({0, 2, 3});
      bn.running_var.value = values.back().var({0, 2, 3}, true);
      append(bn, at::batch_norm(values.back(), bn.weight.value, bn.bias.value, bn.running_mean.value,
                                bn.running_var.value, false, 0.1, bn.eps, false));
    }
    activate(activation, layer);
    return rounded(layer);
  }

  int64_t linear(int64_t features) {
    Node node = reading(OpKind::kLinear, -1, "classifier");
    const int64_t inputs = values.back().size(1);
    node.weight.value = torch::randn({features, inputs}) / std::sqrt(static_cast<double>(inputs));
    node.bias.value = torch::randn({features});
    weight_grid(node);
    append(node, at::linear(values.back(), rounded_weight(node), node.bias.value));
    return rounded("classifier");
  }

  int64_t add(int64_t left, int64_t right, std::optional<OpKind> activation = OpKind::kRelu) {
    Node node;
    node.kind = OpKind::kAdd;
    node.layer = "add" + std::to_string(graph.nodes.size());
    node.inputs = {left, right};
    append(node, values[left] + values[right]);
    activate(activation, node.layer);
    return rounded(node.layer);
  }

  int64_t max_pool(int64_t kernel, int64_t stride, int64_t padding = 0, bool ceil_mode = false) {
    Node node = reading(OpKind::kMaxPool2d, -1, "max_pool");
    node.window = {{kernel, kernel}, {stride, stride}, {padding, padding}, {1, 1}, 1, ceil_mode, true};
    append(node, at::max_pool2d(values.back(), kernel, stride, padding, 1, ceil_mode));
    return last();
  }

  int64_t avg_pool(int64_t kernel, int64_t stride, int64_t padding = 0) {
    Node node = reading(OpKind::kAvgPool2d, -1, "avg_pool");
    node.window = {{kernel, kernel}, {stride, stride}, {padding, padding}, {1, 1}, 1, false, true};
    const at::Tensor x = values.back();
    append(node, at::avg_pool2d(x, kernel, stride, padding));
    return same_grid();
  }

  int64_t global_avg_pool() {
    append(reading(OpKind::kGlobalAvgPool, -1, "pool"), at::adaptive_avg_pool2d(values.back(), {1, 1}));
    return same_grid();
  }

  int64_t flatten() {
    append(reading(OpKind::kFlatten, -1, "flatten"), values.back().flatten(1));
    return last();
  }

  /// The activation alone, on codes.
  int64_t activation(OpKind kind) {
    activate(kind, "activation");
    return last();
  }

 private:
  at::Tensor value(int64_t from) const { return from < 0 ? values.back() : values[from]; }

  Node reading(OpKind kind, int64_t from, const std::string& layer) const {
    Node node;
    node.kind = kind;
    node.layer = layer;
    node.inputs = {from < 0 ? last() : from};
    return node;
  }

  void append(Node node, const at::Tensor& result) {
    node.shape = result.sizes().vec();
    graph.nodes.push_back(std::move(node));
    values.push_back(result);
  }

  void activate(std::optional<OpKind> kind, const std::string& layer) {
    if (kind) {
      append(reading(*kind, -1, layer),
             *kind == OpKind::kRelu ? at::relu(values.back()) : at::hardtanh(values.back(), 0, 6));
    }
  }

  void weight_grid(Node& node) const {
    if (quantised_) {
      const at::Tensor scale = torchslim::quant::quantize_weight(node.weight.value).scale;
      node.weight_grid = Grid{scale, torch::zeros_like(scale, torch::kInt), -127, 127, 0};
    }
  }

  at::Tensor rounded_weight(const Node& node) const {
    if (!quantised_) {
      return node.weight.value;
    }
    const auto weight = torchslim::quant::quantize_weight(node.weight.value);
    return torchslim::quant::dequantize_weight(weight.codes, weight.scale);
  }

  int64_t rounded(const std::string& layer) {
    const double low = std::min(0.0, values.back().min().item<double>());
    const double high = std::max(0.0, values.back().max().item<double>());
    const double scale = std::max((high - low) / 255, 1.0 / 4096);
    return fake_quantize(layer, scale, static_cast<int64_t>(std::nearbyint(-128 - low / scale)));
  }

  // What a prepared pool does: rounds to the grid of its input.
  int64_t same_grid() {
    for (int64_t i = last(); quantised_ && i >= 0; --i) {
      if (graph.nodes[i].kind == OpKind::kFakeQuantize) {
        const Grid grid = *graph.nodes[i].grid;
        return fake_quantize("pool", grid.scale.item<double>(), grid.zero_point.item<int64_t>());
      }
    }
    return last();
  }

  int64_t fake_quantize(const std::string& layer, double scale, int64_t zero_point) {
    if (quantised_) {
      Node node = reading(OpKind::kFakeQuantize, -1, layer + ".output_fake_quantize");
      node.grid = Grid{torch::tensor(static_cast<float>(scale)), torch::tensor(static_cast<int32_t>(zero_point)), -128,
                       127, std::nullopt};
      const float s = static_cast<float>(scale);
      append(node, (torch::round(values.back() * (1.0F / s)) + zero_point).clamp(-128, 127).sub(zero_point).mul(s));
    }
    return last();
  }

  bool quantised_;
};

/// VGG: convolutions with bias, max pools, two linear layers' worth of features flattened from a map.
inline Graph vgg(bool quantised = true) {
  Builder net(3, 24, quantised);
  net.conv({12, 3, 1, 1, 1, false, true});
  net.conv({12, 3, 1, 1, 1, true, true});
  net.max_pool(2, 2);
  net.conv({20, 5});
  net.max_pool(3, 2, 1);
  net.conv({24}, OpKind::kRelu);
  net.avg_pool(2, 2);
  net.flatten();
  net.linear(17);
  return net.graph;
}

/// ResNet: additions, 1x1 shortcuts with stride, global average pool.
inline Graph resnet(bool quantised = true) {
  Builder net(3, 20, quantised);
  int64_t x = net.conv({16});
  for (const auto& [channels, stride] : {std::pair<int64_t, int64_t>{16, 1}, {28, 2}, {28, 1}}) {
    net.conv({channels, 3, stride}, OpKind::kRelu, x);
    const int64_t right = net.conv({channels}, std::nullopt);
    const bool shortcut = stride != 1;
    const int64_t left = shortcut ? net.conv({channels, 1, stride}, std::nullopt, x) : x;
    x = net.add(left, right);
  }
  net.global_avg_pool();
  net.flatten();
  net.linear(10);
  return net.graph;
}

/// MobileNet: depthwise convolutions, ReLU6, residuals without activation, dilation and groups.
inline Graph mobilenet(bool quantised = true) {
  Builder net(1, 28, quantised);
  int64_t x = net.conv({12, 3, 2}, OpKind::kRelu6);
  net.conv({12, 3, 1, 12}, OpKind::kRelu6);
  x = net.conv({20, 1}, std::nullopt);
  net.conv({40, 1}, OpKind::kRelu6);
  net.conv({40, 5, 1, 40}, OpKind::kRelu6);
  const int64_t right = net.conv({20, 1}, std::nullopt);
  net.add(x, right, std::nullopt);
  net.conv({40, 3, 1, 4, 2}, OpKind::kRelu6);
  net.conv({7, 1}, OpKind::kRelu);
  net.global_avg_pool();
  net.flatten();
  net.linear(10);
  return net.graph;
}

/// Images whose first half lies on the input grid's ties and beyond its ends.
inline at::Tensor images(const torchslim::deploy::IntegerGraph& graph, int64_t batch) {
  std::vector<int64_t> shape = graph.nodes[0].shape;
  shape[0] = batch;
  const at::Tensor steps = torch::randint(-600, 600, shape).to(torch::kFloat) / 2;
  const at::Tensor random = torch::randn(shape) * 70;
  return torch::where(torch::rand(shape) < 0.5, steps, random) * graph.nodes[0].scale;
}

}  // namespace networks
