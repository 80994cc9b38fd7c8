// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/graph/interpret.h>

#include <algorithm>
#include <cmath>

#include "deploy/reference_kernel.h"

namespace torchslim::deploy {
namespace {

// The shape of a result for one image. The first dimension holds the batch, alone or times something (heads, groups).
std::vector<int64_t> image_shape(const IntegerNode& node, int64_t batch) {
  std::vector<int64_t> shape = node.shape;
  shape[0] /= batch;
  return shape;
}

CodeRange code_range(const IntegerNode& node) { return {node.zero_point, node.clamp_min, node.clamp_max}; }

std::vector<float> requantization(const IntegerNode& node, const IntegerNode& input) {
  const at::Tensor factors = requantization_factors(node, input);
  return {factors.const_data_ptr<float>(), factors.const_data_ptr<float>() + factors.numel()};
}

WindowShape window_shape(const IntegerNode& node, const IntegerNode& input) {
  const graph::Window& w = node.window;
  const bool global = node.op == IntegerOp::kGlobalAvgPool;
  WindowShape s{};
  if (node.op == IntegerOp::kLinear) {  // a convolution of an image of one pixel, for each row
    return {input.shape.back(), 1, 1, node.shape.back(), 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1};
  }
  const auto height = [](const std::vector<int64_t>& shape) { return shape.size() == 3 ? 1 : shape[2]; };
  s.in_channels = input.shape[1], s.in_height = height(input.shape), s.in_width = input.shape.back();
  s.out_channels = node.shape[1], s.out_height = height(node.shape), s.out_width = node.shape.back();
  s.kernel_height = global ? s.in_height : w.kernel[0];
  s.kernel_width = global ? s.in_width : w.kernel[1];
  s.stride_height = w.stride[0], s.stride_width = w.stride[1];
  s.padding_height = w.padding[0], s.padding_width = w.padding[1];
  s.dilation_height = w.dilation[0], s.dilation_width = w.dilation[1];
  s.groups = w.groups;
  return s;
}

// QNNPACK divides by the window through the scales, which is not always the float nearest to 1 / size.
float pool_multiplier(const IntegerNode& node, const WindowShape& s) {
  const auto size = static_cast<float>(s.kernel_height * s.kernel_width);
  return node.scale / (node.scale * size);
}

// QNNPACK's fixed point: both ratios scaled so that the larger has 22 bits.
FixedPointAdd fixed_point_add(const IntegerNode& node, const IntegerNode& left, const IntegerNode& right) {
  const float left_ratio = left.scale / node.scale;
  const float right_ratio = right.scale / node.scale;
  const int shift = 21 - std::ilogb(std::max(left_ratio, right_ratio));
  return {static_cast<int32_t>(std::lrint(std::ldexp(left_ratio, shift))),
          static_cast<int32_t>(std::lrint(std::ldexp(right_ratio, shift))), left.zero_point, right.zero_point, shift};
}

// What a node needs at run time beyond its fields, computed once a call.
struct PreparedNode {
  const IntegerNode* node;
  std::vector<int64_t> shape;  // of one image
  int64_t size;                // codes of one image
  int64_t offset;              // of those codes in a thread's arena
  WindowShape window{};
  std::vector<float> multipliers;
  std::vector<int16_t> weight;  // the codes, wide enough for a fast dot product
  FixedPointAdd add{};
};

// What a thread works in, large enough for every layer.
struct Scratch {
  std::vector<int16_t> patches;
  std::vector<int32_t> sums;
  std::vector<int8_t> arena;       // the codes of all nodes
  std::vector<at::Tensor> floats;  // of the nodes that give floats
};

// float32(product of the steps) · multiplier, half to even: QNNPACK's rule. A factor for each channel or one for each
// element.
void multiply(const int8_t* left, const int8_t* right, int8_t* y, int64_t left_size, int64_t right_size,
              int32_t left_zero, int32_t right_zero, float multiplier, CodeRange range) {
  const int64_t size = std::max(left_size, right_size);
  for (int64_t i = 0; i < size; ++i) {
    const int32_t a = left[i / (size / left_size)] - left_zero;
    const int32_t b = right[i / (size / right_size)] - right_zero;
    const float scaled = std::nearbyint(static_cast<float>(a * b) * multiplier) + static_cast<float>(range.zero_point);
    y[i] = static_cast<int8_t>(
        std::clamp(scaled, static_cast<float>(range.clamp_min), static_cast<float>(range.clamp_max)));
  }
}

class Runner {
 public:
  Runner(const IntegerGraph& graph, InputRule rule) : rule_(rule) {
    const int64_t batch = graph.nodes[0].shape[0];
    for (const IntegerNode& node : graph.nodes) {
      auto shape = image_shape(node, batch);
      const auto size = c10::multiply_integers(shape);
      PreparedNode prepared{&node, std::move(shape), size, arena_size_, {}, {}, {}, {}};
      arena_size_ += prepared.size;
      if (node.codes.defined()) {
        prepared.multipliers = requantization(node, graph.nodes[node.inputs[0]]);
        const at::Tensor codes = node.codes.contiguous();
        const auto* code = codes.const_data_ptr<int8_t>();
        prepared.weight.assign(code, code + codes.numel());
      }
      if (node.op == IntegerOp::kAdd) {
        prepared.add = fixed_point_add(node, graph.nodes[node.inputs[0]], graph.nodes[node.inputs[1]]);
      }
      prepare_window(prepared, graph);
      nodes_.push_back(std::move(prepared));
    }
  }

  // Runs every image; `wanted[i]`, where defined, receives the codes or floats of node i.
  void run(const at::Tensor& images, const std::vector<at::Tensor>& wanted) const {
    const float* pixels = images.const_data_ptr<float>();
    at::parallel_for(0, images.size(0), 1, [&](int64_t begin, int64_t end) {
      const at::NoGradGuard no_grad;
      Scratch scratch{std::vector<int16_t>(patches_size_), std::vector<int32_t>(sums_size_),
                      std::vector<int8_t>(arena_size_), std::vector<at::Tensor>(nodes_.size())};
      for (int64_t n = begin; n < end; ++n) {
        for (size_t i = 0; i < nodes_.size(); ++i) {
          run_node(i, pixels + n * nodes_[0].size, scratch);
          if (wanted[i].defined()) {
            keep(i, scratch, wanted[i], n);
          }
        }
      }
    });
  }

 private:
  void prepare_window(PreparedNode& prepared, const IntegerGraph& graph) {
    const IntegerNode& node = *prepared.node;
    switch (node.op) {
      case IntegerOp::kConvTranspose1d:
      case IntegerOp::kConvTranspose2d:
        prepared.window = window_shape(node, graph.nodes[node.inputs[0]]);
        sums_size_ = std::max(sums_size_, prepared.window.out_pixels());
        break;
      case IntegerOp::kConv1d:
      case IntegerOp::kConv2d:
      case IntegerOp::kLinear:
        prepared.window = window_shape(node, graph.nodes[node.inputs[0]]);
        patches_size_ = std::max(patches_size_, prepared.window.out_pixels() * prepared.window.patch_size());
        sums_size_ = std::max(sums_size_, prepared.window.plane_size() + prepared.window.sums_size());
        break;
      case IntegerOp::kAvgPool2d:
      case IntegerOp::kGlobalAvgPool:
        prepared.window = window_shape(node, graph.nodes[node.inputs[0]]);
        prepared.multipliers = {pool_multiplier(node, prepared.window)};
        break;
      case IntegerOp::kMaxPool2d:
        prepared.window = window_shape(node, graph.nodes[node.inputs[0]]);
        break;
      default:
        break;
    }
  }

  void keep(size_t i, const Scratch& scratch, const at::Tensor& wanted, int64_t n) const {
    const PreparedNode& p = nodes_[i];
    if (p.node->gives_floats()) {
      const at::Tensor floats = scratch.floats[i].to(at::kFloat);  // of a comparison: 0 or 1
      std::copy_n(floats.const_data_ptr<float>(), p.size, wanted.mutable_data_ptr<float>() + n * p.size);
    } else {
      std::copy_n(scratch.arena.data() + p.offset, p.size, wanted.mutable_data_ptr<int8_t>() + n * p.size);
    }
  }

  // The result of node `i` as floats: what its codes stand for, or in steps from the zero point.
  at::Tensor as_floats(int64_t i, const Scratch& scratch, bool steps) const {
    const PreparedNode& p = nodes_[i];
    if (p.node->gives_floats()) {
      return scratch.floats[i];
    }
    at::Tensor values = at::empty(p.shape, at::TensorOptions().dtype(at::kFloat));
    TORCHSLIM_CALL_KERNEL(reference_dequantize, scratch.arena.data() + p.offset, values.mutable_data_ptr<float>(),
                          p.size, steps ? 1.0F : p.node->scale, p.node->zero_point);
    return values;
  }

  // Runs ATen's operation: on floats, or to move codes about, whose steps from the zero point it sees.
  at::Tensor run_float(const IntegerNode& node, const Scratch& scratch, bool steps) const {
    std::vector<at::Tensor> inputs;
    for (const int64_t input : node.inputs) {
      inputs.push_back(as_floats(input, scratch, steps));
    }
    return graph::run_node(*node.float_node, inputs, /*batch=*/1).contiguous();
  }

  void run_node(size_t index, const float* pixels, Scratch& scratch) const {
    const PreparedNode& p = nodes_[index];
    const IntegerNode& node = *p.node;
    int8_t* arena = scratch.arena.data();
    const auto input = [&](size_t i) -> const PreparedNode& { return nodes_[node.inputs[i]]; };
    const auto codes = [&](size_t i) -> const int8_t* { return arena + input(i).offset; };
    const CodeRange range = code_range(node);
    int8_t* y = arena + p.offset;
    switch (node.op) {
      case IntegerOp::kInput:
        TORCHSLIM_CALL_KERNEL(reference_quantize, pixels, y, p.size, node.scale, rule_ == InputRule::kTorch213, range);
        return;
      case IntegerOp::kConvTranspose1d:
      case IntegerOp::kConvTranspose2d:
        TORCHSLIM_CALL_KERNEL(reference_conv_transpose2d, codes(0), input(0).node->zero_point, p.weight.data(),
                              node.bias_codes.const_data_ptr<int32_t>(), p.multipliers.data(), range, p.window,
                              scratch.sums.data(), y);
        return;
      case IntegerOp::kConv1d:
      case IntegerOp::kConv2d:
      case IntegerOp::kLinear: {
        const int64_t rows = node.op == IntegerOp::kLinear ? p.size / p.window.out_channels : 1;
        for (int64_t row = 0; row < rows; ++row) {
          TORCHSLIM_CALL_KERNEL(reference_conv2d, codes(0) + row * p.window.in_channels, input(0).node->zero_point,
                                p.weight.data(), node.bias_codes.const_data_ptr<int32_t>(), p.multipliers.data(), range,
                                p.window, scratch.patches.data(), scratch.sums.data(), y + row * p.window.out_channels);
        }
        return;
      }
      case IntegerOp::kAdd:
        TORCHSLIM_CALL_KERNEL(reference_add, codes(0), codes(1), y, p.size, p.add, range);
        return;
      case IntegerOp::kMaxPool2d:
        TORCHSLIM_CALL_KERNEL(reference_max_pool2d, codes(0), p.window, range, y);
        return;
      case IntegerOp::kAvgPool2d:
      case IntegerOp::kGlobalAvgPool:
        TORCHSLIM_CALL_KERNEL(reference_avg_pool2d, codes(0), p.window, p.multipliers[0], range, y);
        return;
      case IntegerOp::kClamp:
      case IntegerOp::kFlatten:
        TORCHSLIM_CALL_KERNEL(reference_clamp, codes(0), y, p.size, range);
        return;
      case IntegerOp::kMul: {
        const IntegerNode &left = *input(0).node, &right = *input(1).node;
        multiply(codes(0), codes(1), y, input(0).size, input(1).size, left.zero_point, right.zero_point,
                 left.scale * right.scale / node.scale, range);
        return;
      }
      case IntegerOp::kTable: {
        const int8_t* table = node.table.const_data_ptr<int8_t>();
        std::transform(codes(0), codes(0) + p.size, y, [table](int8_t code) { return table[code + 128]; });
        return;
      }
      case IntegerOp::kMove: {
        const at::Tensor steps = run_float(node, scratch, /*steps=*/true);
        const float* step = steps.const_data_ptr<float>();
        std::transform(step, step + p.size, y, [&range](float value) {
          return static_cast<int8_t>(
              std::clamp(static_cast<int32_t>(value) + range.zero_point, range.clamp_min, range.clamp_max));
        });
        return;
      }
      case IntegerOp::kFloat:
        if (node.inputs.empty()) {  // the image itself
          scratch.floats[index] = at::empty(p.shape, at::TensorOptions().dtype(at::kFloat));
          std::copy_n(pixels, p.size, scratch.floats[index].mutable_data_ptr<float>());
        } else {
          scratch.floats[index] = run_float(node, scratch, /*steps=*/false);
        }
        return;
      case IntegerOp::kQuantize:
        TORCHSLIM_CALL_KERNEL(reference_quantize, scratch.floats[node.inputs[0]].const_data_ptr<float>(), y, p.size,
                              node.scale, /*fused=*/false, range);
        return;
    }
  }

  InputRule rule_;
  std::vector<PreparedNode> nodes_;
  int64_t arena_size_ = 0;
  int64_t patches_size_ = 0;
  int64_t sums_size_ = 0;
};

at::Tensor checked_images(const IntegerGraph& graph, const at::Tensor& images) {
  TORCH_CHECK_VALUE(!graph.nodes.empty(), "torchslim::run_integer: the graph is empty");
  TORCH_CHECK_TYPE(images.scalar_type() == at::kFloat, "torchslim::run_integer: images must be float32, got ",
                   images.scalar_type());
  const std::vector<int64_t>& expected = graph.nodes[0].shape;
  TORCH_CHECK_VALUE(images.dim() == static_cast<int64_t>(expected.size()) &&
                        std::equal(expected.begin() + 1, expected.end(), images.sizes().begin() + 1),
                    "torchslim::run_integer: images must have the shape (N, ", at::IntArrayRef(expected).slice(1),
                    ") of the example, got ", images.sizes());
  at::Tensor contiguous = images.detach().contiguous();
  const float* begin = contiguous.const_data_ptr<float>();
  TORCH_CHECK_VALUE(std::all_of(begin, begin + contiguous.numel(), [](float pixel) { return std::isfinite(pixel); }),
                    "torchslim::run_integer: images hold NaN or infinity");
  return contiguous;
}

// Room for the codes, or the floats, of a node for `batch` images.
at::Tensor empty_result(const IntegerGraph& graph, const IntegerNode& node, int64_t batch) {
  std::vector<int64_t> shape = node.shape;
  shape[0] = shape[0] / graph.nodes[0].shape[0] * batch;
  return at::empty(shape, at::TensorOptions().dtype(node.gives_floats() ? at::kFloat : at::kChar));
}

}  // namespace

IntegerResult run_integer(const IntegerGraph& graph, const at::Tensor& images, InputRule rule) {
  const at::Tensor pixels = checked_images(graph, images);
  const IntegerNode& last = graph.nodes.back();
  std::vector<at::Tensor> wanted(graph.nodes.size());
  wanted.back() = empty_result(graph, last, pixels.size(0));
  Runner(graph, rule).run(pixels, wanted);
  if (last.gives_floats()) {
    return {at::Tensor(), wanted.back()};
  }
  const at::Tensor& codes = wanted.back();
  at::Tensor values = at::empty(codes.sizes(), at::TensorOptions().dtype(at::kFloat));
  TORCHSLIM_CALL_KERNEL(reference_dequantize, codes.const_data_ptr<int8_t>(), values.mutable_data_ptr<float>(),
                        codes.numel(), last.scale, last.zero_point);
  return {codes, values};
}

std::vector<at::Tensor> run_integer_nodes(const IntegerGraph& graph, const at::Tensor& images, InputRule rule) {
  const at::Tensor pixels = checked_images(graph, images);
  std::vector<at::Tensor> results;
  for (const IntegerNode& node : graph.nodes) {
    results.push_back(empty_result(graph, node, pixels.size(0)));
  }
  Runner(graph, rule).run(pixels, results);
  return results;
}

}  // namespace torchslim::deploy
