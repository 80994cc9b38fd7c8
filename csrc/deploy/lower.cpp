// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/graph/operation_rules.h>
#include <torchslim/graph/transposed_weight.h>
#include <torchslim/quant/fold.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
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
  int32_t quant_min;
  int32_t quant_max;
  bool operator==(const ActivationGrid&) const = default;
};

ActivationGrid read_grid(const Node& node) {
  require(node.grid.has_value() && node.grid->scale.defined() && node.grid->zero_point.defined(), node,
          "has no scale and zero point");
  const graph::Grid& grid = *node.grid;
  require(!grid.axis && grid.scale.numel() == 1 && grid.zero_point.numel() == 1, node,
          "activations must have one scale per tensor, got shape ", grid.scale.sizes());
  require(grid.quant_min >= -128 && grid.quant_min < grid.quant_max && grid.quant_max <= 127, node,
          "activations must lie within [-128, 127], got [", grid.quant_min, ", ", grid.quant_max, "]");
  const auto scale = grid.scale.item<float>();
  const auto zero_point = grid.zero_point.item<int64_t>();
  require(std::isfinite(scale) && scale >= kSmallestScale, node, "scale must be at least 2^-12 and finite, got ", scale,
          "; run the prepared model on some training batches first");
  require(zero_point >= grid.quant_min && zero_point <= grid.quant_max, node, "zero point must lie in [",
          grid.quant_min, ", ", grid.quant_max, "], got ", zero_point);
  return {scale, static_cast<int32_t>(zero_point), static_cast<int32_t>(grid.quant_min),
          static_cast<int32_t>(grid.quant_max)};
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
    if (node.kind == OpKind::kInput) {
      return lower_input(index);
    }
    if (node.kind == OpKind::kFakeQuantize) {
      return reads_floats(node) ? lower_quantize(index) : lower_requantize(index);
    }
    if (reads_floats(node) || graph::operation_kind(graph_, index).empty()) {
      return lower_float(index);
    }
    switch (node.kind) {
      case OpKind::kConv1d:
      case OpKind::kConv2d:
      case OpKind::kConvTranspose1d:
      case OpKind::kConvTranspose2d:
      case OpKind::kLinear:
        return node.weight_grid ? lower_weighted(index) : lower_float(index);
      case OpKind::kAdd:
        return has_tail(index) ? lower_add(index) : lower_float(index);
      case OpKind::kMul:
        return has_tail(index) ? lower_mul(index) : lower_float(index);
      case OpKind::kConcat:
        return lower_concat(index);
      case OpKind::kAten:
        return lower_aten(index);
      case OpKind::kRelu:
      case OpKind::kRelu6:
        return lower_clamp(index);
      case OpKind::kMaxPool2d:
        return append(index, copy_of(index, IntegerOp::kMaxPool2d));
      case OpKind::kAvgPool2d:
        return stays_on_grid(index) ? append(index, copy_of(index, IntegerOp::kAvgPool2d)) : lower_float(index);
      case OpKind::kGlobalAvgPool:
        return stays_on_grid(index) ? append(index, copy_of(index, IntegerOp::kGlobalAvgPool)) : lower_float(index);
      case OpKind::kFlatten:
        append(index, copy_of(index, IntegerOp::kFlatten));
        return;
      case OpKind::kInput:
      case OpKind::kFakeQuantize:
      case OpKind::kBatchNorm2d:
        return lower_float(index);
    }
  }

  bool reads_floats(const Node& node) const {
    return std::any_of(node.inputs.begin(), node.inputs.end(),
                       [&](int64_t input) { return result_.nodes[lowered_[input]].gives_floats(); });
  }

  // Whether `read_tail` will find a grid behind node `index`.
  bool has_tail(int64_t index) const {
    bool activation = false, batch_norm = false;
    const bool layer = graph::takes_batch_norm(graph_.nodes[index]);
    for (int64_t current = index;;) {
      const std::vector<int64_t> users = graph_.users(current);
      if (users.size() != 1) {
        return false;
      }
      const Node& user = graph_.nodes[users[0]];
      current = users[0];
      if (user.kind == OpKind::kFakeQuantize) {
        return true;
      }
      if ((user.kind == OpKind::kRelu || user.kind == OpKind::kRelu6) && !activation) {
        activation = true;
      } else if (user.kind == OpKind::kBatchNorm2d && layer && !batch_norm && !activation) {
        batch_norm = true;
      } else {
        return false;
      }
    }
  }

  // The fake_quantize that `read_tail` will find.
  const Node& rounding_behind(int64_t index) const {
    while (graph_.nodes[index].kind != OpKind::kFakeQuantize) {
      index = graph_.users(index).at(0);
    }
    return graph_.nodes[index];
  }

  // What has no integer form runs on floats; codes are read as what they stand for.
  void lower_float(int64_t index) {
    const Node& node = graph_.nodes[index];
    IntegerNode lowered = floats(index);
    lowered.float_node = std::make_shared<const Node>(node);
    append(index, std::move(lowered));
  }

  IntegerNode floats(int64_t index) const {
    const Node& node = graph_.nodes[index];
    IntegerNode lowered;
    lowered.op = IntegerOp::kFloat;
    lowered.layer = node.layer;
    for (const int64_t input : node.inputs) {
      lowered.inputs.push_back(lowered_[input]);
    }
    lowered.shape = node.shape;
    return lowered;
  }

  void lower_quantize(int64_t index) {
    const ActivationGrid grid = read_grid(graph_.nodes[index]);
    IntegerNode lowered = floats(index);
    lowered.op = IntegerOp::kQuantize;
    set_grid(lowered, grid);
    append(index, std::move(lowered));
  }

  static void set_grid(IntegerNode& node, const ActivationGrid& grid) {
    node.scale = grid.scale;
    node.zero_point = grid.zero_point;
    node.clamp_min = grid.quant_min;
    node.clamp_max = grid.quant_max;
  }

  static ActivationGrid grid_of(const IntegerNode& node) {
    return {node.scale, node.zero_point, node.clamp_min, node.clamp_max};
  }

  static bool is_on(const IntegerNode& node, const ActivationGrid& grid) {
    return node.scale == grid.scale && node.zero_point == grid.zero_point;
  }

  // The code that each code of `input` becomes: its value through `function`, rounded to `grid`.
  template <typename Function>
  static IntegerNode table_of(const IntegerNode& input, const ActivationGrid& grid, const Function& function) {
    IntegerNode lowered;
    lowered.op = IntegerOp::kTable;
    set_grid(lowered, grid);
    const at::Tensor codes = at::arange(-128, 128, at::kFloat);
    const at::Tensor values = function((codes - static_cast<float>(input.zero_point)) * input.scale);
    lowered.table = ((values * (1.0F / grid.scale)).round() + static_cast<float>(grid.zero_point))
                        .clamp(grid.quant_min, grid.quant_max)
                        .to(at::kChar)
                        .contiguous();
    return lowered;
  }

  // Codes of a value on another grid than the one they are on; on the same one nothing changes.
  int64_t requantized(int64_t input_index, const ActivationGrid& grid, const Node& node) {
    const IntegerNode& input = result_.nodes[input_index];
    if (is_on(input, grid) && grid.quant_min <= input.clamp_min && grid.quant_max >= input.clamp_max) {
      return input_index;
    }
    IntegerNode lowered = table_of(input, grid, [](const at::Tensor& values) { return values; });
    lowered.layer = node.layer;
    lowered.inputs = {input_index};
    lowered.shape = input.shape;
    result_.nodes.push_back(std::move(lowered));
    return static_cast<int64_t>(result_.nodes.size()) - 1;
  }

  void lower_requantize(int64_t index) {
    const Node& node = graph_.nodes[index];
    lowered_[index] = requantized(lowered_[node.inputs[0]], read_grid(node), node);
  }

  void lower_mul(int64_t index) {
    const Tail tail = read_tail(index);
    append(index, start(index, IntegerOp::kMul, tail), &tail);
  }

  // Codes on one grid are copied; those on others are brought to the grid behind the concatenation first.
  void lower_concat(int64_t index) {
    const Node& node = graph_.nodes[index];
    std::optional<Tail> tail;
    ActivationGrid grid = grid_of(quantized_input(node, 0));
    bool same = true;
    for (const int64_t input : node.inputs) {
      const IntegerNode& lowered = result_.nodes[lowered_[input]];
      same = same && is_on(lowered, grid);
      grid.quant_min = std::min(grid.quant_min, lowered.clamp_min);
      grid.quant_max = std::max(grid.quant_max, lowered.clamp_max);
    }
    // Onto another grid each before, not all behind: OpenVINO crashes on two roundings in a row behind a concatenation.
    same = same && (!has_tail(index) || is_on(quantized_input(node, 0), read_grid(rounding_behind(index))));
    if (!same) {
      if (!has_tail(index)) {
        return lower_float(index);
      }
      tail = read_tail(index);
      grid = tail->grid;
    }
    IntegerNode lowered = floats(index);
    lowered.op = IntegerOp::kMove;
    set_grid(lowered, grid);
    for (int64_t& input : lowered.inputs) {
      input = requantized(input, grid, node);
    }
    if (tail && tail->activation) {
      apply_activation(lowered, *tail->activation);
    }
    lowered.float_node = std::make_shared<const Node>(node);
    append(index, std::move(lowered), tail ? &*tail : nullptr);
  }

  void lower_aten(int64_t index) {
    const Node& node = graph_.nodes[index];
    if (node.call->role == graph::AtenRole::kCopies) {
      IntegerNode lowered = copy_of(index, IntegerOp::kMove);
      lowered.float_node = std::make_shared<const Node>(node);
      append(index, std::move(lowered));
    } else if (node.call->role == graph::AtenRole::kElementwise && has_tail(index)) {
      const Tail tail = read_tail(index);
      IntegerNode lowered = table_of(quantized_input(node, 0), tail.grid, [&](const at::Tensor& values) {
        const at::Tensor result = graph::run_node(node, {values}, 1);
        return !tail.activation ? result : *tail.activation == OpKind::kRelu ? result.clamp_min(0) : result.clamp(0, 6);
      });
      lowered.layer = node.layer;
      lowered.inputs = {lowered_[node.inputs[0]]};
      lowered.shape = node.shape;
      lowered.float_node = std::make_shared<const Node>(node);
      if (tail.activation) {
        apply_activation(lowered, *tail.activation);
      }
      append(index, std::move(lowered), &tail);
    } else {
      lower_float(index);
    }
  }

  void lower_input(int64_t index) {
    const bool prepared = std::any_of(graph_.nodes.begin(), graph_.nodes.end(),
                                      [](const Node& node) { return node.kind == OpKind::kFakeQuantize; });
    require(prepared, graph_.nodes[index],
            "no value is rounded to int8; run quant.prepare on the model before capture");
    if (!has_tail(index)) {
      return lower_float(index);  // a first layer in float reads it
    }
    const Tail tail = read_tail(index);
    require(!tail.batch_norm && !tail.activation, graph_.nodes[index],
            "must be rounded before anything else reads it; run quant.prepare");
    append(index, start(index, IntegerOp::kInput, tail), &tail);
  }

  void lower_weighted(int64_t index) {
    const Node& node = graph_.nodes[index];
    const IntegerNode input = quantized_input(node, 0);
    const Tail tail = read_tail(index);
    check_weight(node);
    IntegerNode lowered = start(index, integer_op(node.kind), tail);
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

  static IntegerOp integer_op(OpKind kind) {
    switch (kind) {
      case OpKind::kConv1d:
        return IntegerOp::kConv1d;
      case OpKind::kConv2d:
        return IntegerOp::kConv2d;
      case OpKind::kConvTranspose1d:
        return IntegerOp::kConvTranspose1d;
      case OpKind::kConvTranspose2d:
        return IntegerOp::kConvTranspose2d;
      default:
        return IntegerOp::kLinear;
    }
  }

  static quant::FoldedWeight fold(const Node& node, const Tail& tail, float input_scale) {
    std::optional<quant::BatchNormTensors> batch_norm;
    if (tail.batch_norm != nullptr) {
      const Node& bn = *tail.batch_norm;
      batch_norm = {bn.weight.value, bn.bias.value, bn.running_mean.value, bn.running_var.value, bn.eps};
    }
    try {
      const at::Tensor scale = at::scalar_tensor(input_scale, at::kFloat);
      return quant::fold_layer(quantized_weight(node), node.bias.value, batch_norm, scale);
    } catch (const c10::ValueError& error) {
      require(false, node, error.what_without_backtrace());
      throw;
    }
  }

  void check_weight(const Node& node) const {
    require(node.weight_grid.has_value(), node,
            "the weight is not rounded to int8; run quant.prepare on the model before capture");
    const graph::Grid& grid = *node.weight_grid;
    require(grid.quant_min == -grid.quant_max && grid.quant_max >= 1 && grid.quant_max <= 127, node,
            "weights must lie on a grid [-q, q] within [-127, 127], got [", grid.quant_min, ", ", grid.quant_max, "]");
    require(grid.axis.value_or(0) == 0 && grid.scale.defined() &&
                grid.scale.numel() == graph::weight_by_outputs(node).size(0),
            node, "weights must have one scale per output channel");
    require(!grid.zero_point.defined() || grid.zero_point.count_nonzero().item<int64_t>() == 0, node,
            "weights must have zero point 0");
    const at::Tensor scale = grid.scale.detach();
    require((scale.isfinite() & (scale >= std::numeric_limits<float>::min())).all().item<bool>(), node,
            "the weight's scale must be > 0, normal and finite in each channel");
  }

  // The codes by the rule of fake_quantize, so that they are those that the model trained with.
  static quant::QuantizedWeight quantized_weight(const Node& node) {
    const graph::Grid& grid = *node.weight_grid;
    const at::Tensor scale = grid.scale.detach().to(at::kFloat).reshape(-1);
    const at::Tensor weight = graph::weight_by_outputs(node).detach().to(at::kFloat);
    if (grid.quant_max == 127) {
      quant::QuantizedWeight usual = quant::quantize_weight(weight);
      if (scale.equal(usual.scale)) {
        return usual;
      }
    }
    std::vector<int64_t> per_channel(weight.dim(), 1);
    per_channel[0] = scale.numel();
    TORCH_CHECK_VALUE(weight.isfinite().all().item<bool>(), "the weight holds NaN or infinity");
    const at::Tensor steps = (weight * scale.reciprocal().view(per_channel)).round_();
    return {steps.clamp_(grid.quant_min, grid.quant_max).to(at::kChar), scale};
  }

  // Bounds every partial sum: int32 must hold it, and so must the float product that is rounded.
  static void check_sums(const Node& node, const IntegerNode& lowered, const IntegerNode& input) {
    constexpr double kLimit = 2147483648.0;
    const at::Tensor per_channel = lowered.codes.flatten(1).to(at::kDouble).abs().sum(1);
    const at::Tensor largest = per_channel * 255 + lowered.bias_codes.to(at::kDouble).abs();
    require(largest.max().item<double>() < kLimit, node,
            "the sum of a channel could pass 2^31; it has too many inputs for int32");
    const at::Tensor multiplier = requantization_factors(lowered, input);
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

  // Whether the result of node `index` is rounded to the grid that its input is on.
  bool stays_on_grid(int64_t index) const {
    const std::vector<int64_t> users = graph_.users(index);
    const IntegerNode& input = quantized_input(graph_.nodes[index], 0);
    return users.size() == 1 && graph_.nodes[users[0]].kind == OpKind::kFakeQuantize &&
           is_on(input, read_grid(graph_.nodes[users[0]]));
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
      } else if (user.kind == OpKind::kBatchNorm2d && graph::takes_batch_norm(node) && !tail.batch_norm &&
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
    lowered.clamp_min = tail.grid.quant_min;
    lowered.clamp_max = tail.grid.quant_max;
    if (tail.activation) {
      apply_activation(lowered, *tail.activation);
    }
    return lowered;
  }

  // An operation that leaves its input's grid and bounds as they are.
  IntegerNode copy_of(int64_t index, IntegerOp op) const {
    const IntegerNode& input = quantized_input(graph_.nodes[index], 0);
    Tail tail;
    tail.grid = grid_of(input);
    IntegerNode lowered = start(index, op, tail);
    return lowered;
  }

  static void apply_activation(IntegerNode& node, OpKind activation) {
    node.clamp_min = std::max(node.clamp_min, node.zero_point);
    if (activation == OpKind::kRelu6) {
      const float six = std::nearbyint(6.0F * (1.0F / node.scale)) + static_cast<float>(node.zero_point);
      node.clamp_max = static_cast<int32_t>(std::min(static_cast<float>(node.clamp_max), six));
    }
  }

  void append(int64_t index, IntegerNode node, const Tail* tail = nullptr) {
    lowered_[index] = static_cast<int64_t>(result_.nodes.size());
    node.graph_node = index;
    if (tail != nullptr) {
      lowered_[tail->fake_quantize] = lowered_[index];
      node.graph_node = tail->fake_quantize;
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
