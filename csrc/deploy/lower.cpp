// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/quant/fold.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace torchslim::deploy {
namespace {

using graph::Graph;
using graph::Node;
using graph::OpKind;

constexpr float kSmallestScale = 1.0F / 4096;
constexpr int64_t kNotLowered = -1;

std::string describe(const Node& node) {
  return (node.layer.empty() ? std::string("the model itself") : node.layer) + " (" + graph::to_string(node.kind) + ")";
}

template <typename... Text>
void require(bool condition, const Node& node, const Text&... text) {
  TORCH_CHECK_VALUE(condition, "torchslim::lower: ", describe(node), ": ", text...);
}

/// The grid of an activation, read from the tensors of a fake_quantize.
struct ActivationGrid {
  float scale;
  int32_t zero_point;
  bool operator==(const ActivationGrid&) const = default;
};

ActivationGrid read_grid(const Node& node) {
  require(node.grid.has_value() && node.grid->scale.defined() && node.grid->zero_point.defined(), node,
          "has no scale and zero point");
  const graph::Grid& grid = *node.grid;
  require(!grid.axis && grid.scale.numel() == 1 && grid.zero_point.numel() == 1, node,
          "activations must have one scale per tensor, got shape ", grid.scale.sizes());
  require(grid.quant_min == -128 && grid.quant_max == 127, node, "activations must lie on [-128, 127], got [",
          grid.quant_min, ", ", grid.quant_max, "]");
  const auto scale = grid.scale.item<float>();
  const auto zero_point = grid.zero_point.item<int64_t>();
  require(std::isfinite(scale) && scale >= kSmallestScale, node, "scale must be at least 2^-12 and finite, got ", scale,
          "; run the prepared model on some training batches first");
  require(zero_point >= -128 && zero_point <= 127, node, "zero point must lie in [-128, 127], got ", zero_point);
  return {scale, static_cast<int32_t>(zero_point)};
}

/// What follows an operation until its result is rounded to a grid.
struct Tail {
  const Node* batch_norm = nullptr;
  std::optional<OpKind> activation;  // kRelu or kRelu6
  int64_t fake_quantize = 0;
  ActivationGrid grid{};
};

class Lowering {
 public:
  explicit Lowering(const Graph& graph)
      : graph_(graph), lowered_(graph.nodes.size(), kNotLowered), absorbed_(graph.nodes.size()) {}

  IntegerGraph run() {
    TORCH_CHECK_VALUE(!graph_.nodes.empty() && graph_.nodes[0].kind == OpKind::kInput,
                      "torchslim::lower: the graph must begin with its input");
    for (const auto i : c10::irange(static_cast<int64_t>(graph_.nodes.size()))) {
      if (!absorbed_[i]) {
        lower_node(i);
      }
    }
    require(lowered_.back() != kNotLowered, graph_.nodes.back(), "the result is no integer tensor");
    require(lowered_.back() + 1 == static_cast<int64_t>(result_.nodes.size()), graph_.nodes.back(),
            "the graph computes something after its result");
    return std::move(result_);
  }

 private:
  void lower_node(int64_t index) {
    const Node& node = graph_.nodes[index];
    switch (node.kind) {
      case OpKind::kInput:
        return lower_input(index);
      case OpKind::kConv2d:
      case OpKind::kLinear:
        return lower_weighted(index);
      case OpKind::kAdd:
        return lower_add(index);
      case OpKind::kRelu:
      case OpKind::kRelu6:
        return lower_clamp(index);
      case OpKind::kMaxPool2d:
        return lower_max_pool(index);
      case OpKind::kAvgPool2d:
        return lower_avg_pool(index);
      case OpKind::kGlobalAvgPool:
        append(index, copy_of(index, IntegerOp::kGlobalAvgPool));
        return;
      case OpKind::kFlatten:
        append(index, copy_of(index, IntegerOp::kFlatten));
        return;
      case OpKind::kFakeQuantize:
        return lower_same_grid(index);
      case OpKind::kBatchNorm2d:
        require(false, node, "only a batch norm right after a convolution can be folded");
    }
  }

  void lower_input(int64_t index) {
    const Tail tail = read_tail(index);
    require(!tail.batch_norm && !tail.activation, graph_.nodes[index],
            "must be rounded before anything else reads it; run quant.prepare");
    append(index, start(index, IntegerOp::kInput, tail), &tail);
  }

  void lower_weighted(int64_t index) {
    const Node& node = graph_.nodes[index];
    const IntegerNode input = quantized_input(node, 0);
    const bool conv = node.kind == OpKind::kConv2d;
    const Tail tail = read_tail(index);
    check_weight(node);
    require(conv || node.shape.size() == 2, node, "must read (N, features), got a result of shape ",
            at::IntArrayRef(node.shape), "; flatten before it");
    IntegerNode lowered = start(index, conv ? IntegerOp::kConv2d : IntegerOp::kLinear, tail);
    const quant::FoldedWeight folded = fold(node, tail, input.scale);
    lowered.codes = folded.codes.contiguous();
    lowered.weight_scale = folded.scale.contiguous();
    lowered.bias = folded.bias.contiguous();
    // QNNPACK reads the bias back by this product; float32 throughout.
    const at::Tensor steps = (lowered.weight_scale * input.scale).reciprocal();
    lowered.bias_codes = (lowered.bias * steps).round().to(at::kInt);
    check_sums(node, lowered, input);
    append(index, std::move(lowered), &tail);
  }

  static quant::FoldedWeight fold(const Node& node, const Tail& tail, float input_scale) {
    std::optional<quant::BatchNormTensors> batch_norm;
    if (tail.batch_norm != nullptr) {
      const Node& bn = *tail.batch_norm;
      batch_norm = {bn.weight.value, bn.bias.value, bn.running_mean.value, bn.running_var.value, bn.eps};
    }
    try {
      return quant::fold_layer(node.weight.value, node.bias.value, batch_norm,
                               at::scalar_tensor(input_scale, at::kFloat));
    } catch (const c10::ValueError& error) {
      require(false, node, error.what_without_backtrace());
      throw;
    }
  }

  void check_weight(const Node& node) const {
    require(node.weight_grid.has_value(), node,
            "the weight is not rounded to int8; run quant.prepare on the model before capture");
    const graph::Grid& grid = *node.weight_grid;
    require(grid.quant_min == -127 && grid.quant_max == 127, node, "weights must lie on [-127, 127], got [",
            grid.quant_min, ", ", grid.quant_max, "]");
    require(grid.axis.value_or(0) == 0 && grid.scale.defined() && grid.scale.numel() == node.weight.value.size(0), node,
            "weights must have one scale per output channel");
    require(!grid.zero_point.defined() || grid.zero_point.count_nonzero().item<int64_t>() == 0, node,
            "weights must have zero point 0");
    const at::Tensor expected = quant::quantize_weight(node.weight.value).scale;
    require(grid.scale.detach().to(at::kFloat).view(-1).equal(expected), node,
            "the weight's scale is not max|w| / 127 of its channel; convert needs the grid that "
            "quant.prepare uses");
  }

  // Bounds every partial sum: int32 must hold it, and so must the float product that is rounded.
  static void check_sums(const Node& node, const IntegerNode& lowered, const IntegerNode& input) {
    constexpr double kLimit = 2147483648.0;
    const at::Tensor per_channel = lowered.codes.flatten(1).to(at::kDouble).abs().sum(1);
    const at::Tensor largest = per_channel * 255 + lowered.bias_codes.to(at::kDouble).abs();
    require(largest.max().item<double>() < kLimit, node,
            "the sum of a channel could pass 2^31; it has too many inputs for int32");
    const at::Tensor multiplier = lowered.weight_scale * input.scale * (1.0F / lowered.scale);
    require(multiplier.min().item<float>() >= std::numeric_limits<float>::min(), node,
            "input scale * weight scale / output scale is no normal float: ", multiplier.min().item<float>());
    require((largest * multiplier.to(at::kDouble)).max().item<double>() < kLimit / 2, node, "the output scale ",
            lowered.scale, " is far too small for the sums of the layer");
  }

  void lower_add(int64_t index) {
    const Node& node = graph_.nodes[index];
    const Tail tail = read_tail(index);
    IntegerNode lowered = start(index, IntegerOp::kAdd, tail);
    const float left = quantized_input(node, 0).scale / lowered.scale;
    const float right = quantized_input(node, 1).scale / lowered.scale;
    constexpr float kSmallest = 1.0F / 16384, kLargest = 256, kSmallestOfLarger = 1.0F / 1024;
    require(std::min(left, right) >= kSmallest && std::max(left, right) < kLargest &&
                std::max(left, right) >= kSmallestOfLarger,
            node, "input scale / output scale must lie in [2^-14, 2^8) and the larger be at least ", "2^-10, got ",
            left, " and ", right);
    append(index, std::move(lowered), &tail);
  }

  // An activation on codes. Where it changes nothing it disappears.
  void lower_clamp(int64_t index) {
    IntegerNode lowered = copy_of(index, IntegerOp::kClamp);
    const IntegerNode& input = result_.nodes[lowered.inputs[0]];
    apply_activation(lowered, graph_.nodes[index].kind);
    if (lowered.clamp_min <= input.clamp_min && lowered.clamp_max >= input.clamp_max) {
      lowered_[index] = lowered.inputs[0];
      return;
    }
    lowered.clamp_min = std::max(lowered.clamp_min, input.clamp_min);
    lowered.clamp_max = std::min(lowered.clamp_max, input.clamp_max);
    append(index, std::move(lowered));
  }

  void lower_max_pool(int64_t index) {
    const Node& node = graph_.nodes[index];
    require(node.window.kernel != std::array<int64_t, 2>{1, 1}, node,
            "a window of one element pools nothing; remove the layer");
    require(node.window.padding == std::array<int64_t, 2>{0, 0} || node.window.dilation == std::array<int64_t, 2>{1, 1},
            node, "padding together with dilation is not what QNNPACK computes; use one of them");
    append(index, copy_of(index, IntegerOp::kMaxPool2d));
  }

  void lower_avg_pool(int64_t index) {
    const Node& node = graph_.nodes[index];
    const graph::Window& window = node.window;
    require(window.kernel != std::array<int64_t, 2>{1, 1}, node,
            "a window of one element pools nothing; remove the layer");
    require(window.count_include_pad || window.padding == std::array<int64_t, 2>{0, 0}, node,
            "count_include_pad=False with padding is not what QNNPACK computes; use True");
    IntegerNode lowered = copy_of(index, IntegerOp::kAvgPool2d);
    const std::vector<int64_t>& in = result_.nodes[lowered.inputs[0]].shape;
    for (const auto d : c10::irange(2)) {
      const int64_t floor_size = (in[2 + d] + 2 * window.padding[d] - window.kernel[d]) / window.stride[d] + 1;
      require(lowered.shape[2 + d] == floor_size, node,
              "ceil_mode=True is not what QNNPACK computes for this size; use False");
    }
    append(index, std::move(lowered));
  }

  // A fake_quantize of codes must round to the grid they are on, which changes nothing.
  void lower_same_grid(int64_t index) {
    const Node& node = graph_.nodes[index];
    const ActivationGrid grid = read_grid(node);
    const IntegerNode& input = quantized_input(node, 0);
    const ActivationGrid expected{input.scale, input.zero_point};
    require(grid == expected, node, "rounds the result of ", describe(graph_.nodes[node.inputs[0]]), " to scale ",
            grid.scale, ", zero point ", grid.zero_point, ", but it already lies on scale ", expected.scale,
            ", zero point ", expected.zero_point, "; pools and copies must share their input's quantiser");
    lowered_[index] = lowered_[node.inputs[0]];
  }

  // Reads [batch norm] [relu | relu6] fake_quantize after node `index`, each the only reader of the one before.
  Tail read_tail(int64_t index) {
    const Node& node = graph_.nodes[index];
    Tail tail;
    for (int64_t current = index;;) {
      const std::vector<int64_t> users = graph_.users(current);
      require(users.size() == 1, node, "its result must be rounded by a fake_quantize before ",
              users.empty() ? "it is returned" : "several operations read it",
              "; run quant.prepare on the model before capture");
      const Node& user = graph_.nodes[users[0]];
      current = users[0];
      absorbed_[current] = true;
      const bool activation = user.kind == OpKind::kRelu || user.kind == OpKind::kRelu6;
      if (user.kind == OpKind::kFakeQuantize) {
        tail.fake_quantize = current;
        tail.grid = read_grid(user);
        return tail;
      }
      if (activation && !tail.activation) {
        tail.activation = user.kind;
      } else if (user.kind == OpKind::kBatchNorm2d && node.kind == OpKind::kConv2d && !tail.batch_norm &&
                 !tail.activation) {
        tail.batch_norm = &user;
      } else {
        require(false, node, "its result must be rounded by a fake_quantize before ", describe(user),
                " reads it; run quant.prepare on the model before capture");
      }
    }
  }

  const IntegerNode& quantized_input(const Node& node, size_t i) const {
    const int64_t lowered = lowered_[node.inputs[i]];
    require(lowered != kNotLowered, node, "reads floats from ", describe(graph_.nodes[node.inputs[i]]),
            "; run quant.prepare on the model before capture");
    return result_.nodes[lowered];
  }

  IntegerNode start(int64_t index, IntegerOp op, const Tail& tail) const {
    const Node& node = graph_.nodes[index];
    IntegerNode lowered;
    lowered.op = op;
    lowered.layer = node.layer;
    for (const auto i : c10::irange(node.inputs.size())) {
      quantized_input(node, i);
      lowered.inputs.push_back(lowered_[node.inputs[i]]);
    }
    lowered.shape = node.shape;
    lowered.window = node.window;
    lowered.scale = tail.grid.scale;
    lowered.zero_point = tail.grid.zero_point;
    if (tail.activation) {
      apply_activation(lowered, *tail.activation);
    }
    return lowered;
  }

  // An operation that leaves its input's grid and bounds as they are.
  IntegerNode copy_of(int64_t index, IntegerOp op) const {
    const IntegerNode& input = quantized_input(graph_.nodes[index], 0);
    Tail tail;
    tail.grid = {input.scale, input.zero_point};
    IntegerNode lowered = start(index, op, tail);
    lowered.clamp_min = input.clamp_min;
    lowered.clamp_max = input.clamp_max;
    return lowered;
  }

  static void apply_activation(IntegerNode& node, OpKind activation) {
    node.clamp_min = node.zero_point;
    node.clamp_max = 127;
    if (activation == OpKind::kRelu6) {
      const float six = std::nearbyint(6.0F * (1.0F / node.scale));
      node.clamp_max = static_cast<int32_t>(std::min(127.0F, six + static_cast<float>(node.zero_point)));
    }
  }

  void append(int64_t index, IntegerNode node, const Tail* tail = nullptr) {
    lowered_[index] = static_cast<int64_t>(result_.nodes.size());
    if (tail != nullptr) {
      lowered_[tail->fake_quantize] = lowered_[index];
    }
    result_.nodes.push_back(std::move(node));
  }

  const Graph& graph_;
  IntegerGraph result_;
  std::vector<int64_t> lowered_;  // graph node -> integer node, for values that are codes
  std::vector<bool> absorbed_;    // nodes that are part of an earlier one
};

}  // namespace

IntegerGraph lower(const Graph& graph) { return Lowering(graph).run(); }

}  // namespace torchslim::deploy
