// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/graph/transposed_weight.h>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"
#include "cpp/deploy/networks.h"
#include "cpp/deploy/quantized_ops.h"

using namespace torchslim::deploy;
using torchslim::core::CpuCapability;

namespace {

// Scales that make ties (powers of two) and scales that make none.
float random_scale(bool ties, float around) {
  const float random = around * std::exp2(torch::rand({}).item<float>() * 4 - 2);
  return ties ? std::exp2(std::round(std::log2(random))) : random;
}

int32_t random_zero_point() { return torch::randint(-128, 128, {}).item<int32_t>(); }

IntegerGraph start(int64_t channels, int64_t height, int64_t width, bool ties) {
  IntegerGraph graph;
  IntegerNode input;
  input.shape = {1, channels, height, width};
  input.scale = random_scale(ties, 0.05F);
  input.zero_point = random_zero_point();
  graph.nodes.push_back(input);
  return graph;
}

void set_grid(IntegerNode& node, bool ties, float around, bool relu) {
  node.scale = random_scale(ties, around);
  node.zero_point = random_zero_point();
  node.clamp_min = relu ? node.zero_point : -128;
}

void set_weight(IntegerNode& node, const IntegerNode& input, bool ties, at::IntArrayRef shape, double bias_steps) {
  node.codes = torch::randint(-127, 128, shape, torch::kChar);
  node.weight_scale = torch::empty({shape[0]});
  for (int64_t o = 0; o < shape[0]; ++o) {
    node.weight_scale[o] = random_scale(ties, 0.01F);
  }
  const at::Tensor grid = node.weight_scale * input.scale;
  node.bias = torch::round(torch::randn({shape[0]}) * bias_steps) * grid;
  node.bias_codes = (node.bias * grid.reciprocal()).round().to(torch::kInt);
}

int64_t output_size(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

void append_conv(IntegerGraph& graph, int64_t from, int64_t channels, const torchslim::graph::Window& w, bool ties,
                 bool relu, double bias_steps = 3000) {
  const IntegerNode& input = graph.nodes[from];
  IntegerNode node;
  node.op = IntegerOp::kConv2d;
  node.inputs = {from};
  node.window = w;
  node.shape = {1, channels};
  for (int d = 0; d < 2; ++d) {
    node.shape.push_back(output_size(input.shape[2 + d], w.kernel[d], w.stride[d], w.padding[d], w.dilation[d]));
  }
  const int64_t inputs = input.shape[1] / w.groups;
  set_weight(node, input, ties, {channels, inputs, w.kernel[0], w.kernel[1]}, bias_steps);
  set_grid(node, ties, 0.02F * std::sqrt(static_cast<float>(inputs * w.kernel[0] * w.kernel[1])), relu);
  graph.nodes.push_back(node);
}

void append_transposed(IntegerGraph& graph, int64_t channels, const torchslim::graph::Window& w, bool ties, bool relu) {
  const IntegerNode& input = graph.nodes[0];
  IntegerNode node;
  node.op = IntegerOp::kConvTranspose2d;
  node.inputs = {0};
  node.window = w;
  node.shape = {1, channels};
  for (int d = 0; d < 2; ++d) {
    node.shape.push_back((input.shape[2 + d] - 1) * w.stride[d] - 2 * w.padding[d] + w.dilation[d] * (w.kernel[d] - 1) +
                         w.output_padding[d] + 1);
  }
  set_weight(node, input, ties, {channels, input.shape[1] / w.groups, w.kernel[0], w.kernel[1]}, 3000);
  set_grid(node, ties, 0.1F, relu);
  graph.nodes.push_back(node);
}

at::Tensor random_images(const IntegerGraph& graph, int64_t batch) {
  const IntegerNode& input = graph.nodes[0];
  std::vector<int64_t> shape = input.shape;
  shape[0] = batch;
  return (torch::randint(-128, 128, shape).to(torch::kFloat) - input.zero_point) * input.scale;
}

int64_t all_differences(const IntegerGraph& graph, int64_t batch) {
  const auto codes = run_integer_nodes(graph, random_images(graph, batch));
  int64_t count = 0;
  for (size_t i = 1; i < graph.nodes.size(); ++i) {
    count += quantized_ops::differences(graph, i, codes);
  }
  return count;
}

}  // namespace

TEST_CASE("reference: convolutions equal quantized::conv2d in every code", "[deploy][reference]") {
  torch::manual_seed(1);
  const bool ties = GENERATE(true, false);
  const bool relu = GENERATE(true, false);
  torchslim::graph::Window w;
  SECTION("3x3 with padding") { w = {{3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, true}; }
  SECTION("3x3 with stride 2") { w = {{3, 3}, {2, 2}, {1, 1}, {1, 1}, 1, false, true}; }
  SECTION("1x1") { w = {{1, 1}, {1, 1}, {0, 0}, {1, 1}, 1, false, true}; }
  SECTION("1x1 with stride 2") { w = {{1, 1}, {2, 2}, {0, 0}, {1, 1}, 1, false, true}; }
  SECTION("depthwise 3x3") { w = {{3, 3}, {1, 1}, {1, 1}, {1, 1}, 12, false, true}; }
  SECTION("depthwise 5x5, stride 2") { w = {{5, 5}, {2, 2}, {2, 2}, {1, 1}, 12, false, true}; }
  SECTION("depthwise 7x7") { w = {{7, 7}, {1, 1}, {3, 3}, {1, 1}, 12, false, true}; }
  SECTION("groups, dilation") { w = {{3, 3}, {1, 1}, {2, 2}, {2, 2}, 3, false, true}; }
  SECTION("oblong") { w = {{1, 5}, {2, 1}, {0, 3}, {1, 1}, 2, false, true}; }
  SECTION("4x4, no padding") { w = {{4, 4}, {3, 3}, {0, 0}, {1, 1}, 1, false, true}; }
  for (int repeat = 0; repeat < 3; ++repeat) {
    IntegerGraph graph = start(12, 13, 11, ties);
    append_conv(graph, 0, 12, w, ties, relu);
    CHECK(all_differences(graph, 3) == 0);
  }
}

TEST_CASE("reference: biases far beyond a float's 24 bits are read as QNNPACK reads them", "[deploy][reference]") {
  torch::manual_seed(2);
  for (const double steps : {1e5, 1e7, 2e8}) {
    IntegerGraph graph = start(8, 9, 9, false);
    append_conv(graph, 0, 32, {{3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, true}, false, false, steps);
    graph.nodes[1].scale *= static_cast<float>(steps / 1e4);  // so that not all saturate
    CHECK(all_differences(graph, 4) == 0);
  }
}

TEST_CASE("reference: linear layers equal quantized::linear in every code", "[deploy][reference]") {
  torch::manual_seed(3);
  const bool ties = GENERATE(true, false);
  const bool relu = GENERATE(true, false);
  for (const int64_t features : {1, 7, 64, 1000}) {
    IntegerGraph graph = start(features, 1, 1, ties);
    IntegerNode flat;
    flat.op = IntegerOp::kFlatten;
    flat.inputs = {0};
    flat.shape = {1, features};
    flat.scale = graph.nodes[0].scale;
    flat.zero_point = graph.nodes[0].zero_point;
    graph.nodes.push_back(flat);
    IntegerNode node;
    node.op = IntegerOp::kLinear;
    node.inputs = {1};
    node.shape = {1, 33};
    set_weight(node, flat, ties, {33, features}, 3000);
    set_grid(node, ties, 0.02F * std::sqrt(static_cast<float>(features)), relu);
    graph.nodes.push_back(node);
    CHECK(all_differences(graph, 64) == 0);
  }
}

TEST_CASE("reference: additions equal quantized::add in every code", "[deploy][reference]") {
  torch::manual_seed(4);
  const bool ties = GENERATE(true, false);
  const bool relu = GENERATE(true, false);
  const torchslim::graph::Window copy = {{1, 1}, {1, 1}, {0, 0}, {1, 1}, 16, false, true};
  for (const float ratio : {1.0F, 0.01F, 20.0F, 1.0F / 900, 200.0F}) {
    IntegerGraph graph = start(16, 16, 16, ties);
    append_conv(graph, 0, 16, copy, ties, false);
    append_conv(graph, 0, 16, copy, ties, false);
    IntegerNode node;
    node.op = IntegerOp::kAdd;
    node.inputs = {1, 2};
    node.shape = graph.nodes[1].shape;
    set_grid(node, ties, 0.02F, relu);
    node.scale = std::max(graph.nodes[1].scale, graph.nodes[2].scale) / ratio;
    graph.nodes.push_back(node);
    CHECK(all_differences(graph, 16) == 0);
  }
}

TEST_CASE("reference: pools equal QNNPACK's in every code", "[deploy][reference]") {
  torch::manual_seed(5);
  const bool ties = GENERATE(true, false);
  const auto pool = [&](IntegerOp op, int64_t height, int64_t width, torchslim::graph::Window window,
                        int64_t out_height, int64_t out_width) {
    IntegerGraph graph = start(9, height, width, ties);
    graph.nodes[0].scale *= 0.37F;
    IntegerNode node;
    node.op = op;
    node.inputs = {0};
    node.window = window;
    node.shape = {1, 9, out_height, out_width};
    node.scale = graph.nodes[0].scale;
    node.zero_point = graph.nodes[0].zero_point;
    graph.nodes.push_back(node);
    // Codes of two neighbours only: their means are ties more often.
    const auto codes = run_integer_nodes(
        graph, (torch::randint(0, 2, {64, 9, height, width}).to(torch::kFloat) + 20) * graph.nodes[0].scale);
    return quantized_ops::differences(graph, 1, codes) + all_differences(graph, 16);
  };
  const std::array<std::array<int64_t, 2>, 9> sizes = {
      {{1, 1}, {2, 3}, {4, 4}, {7, 7}, {6, 6}, {7, 4}, {14, 14}, {28, 28}, {3, 10}}};
  for (const auto& size : sizes) {
    CHECK(pool(IntegerOp::kGlobalAvgPool, size[0], size[1], {}, 1, 1) == 0);
  }
  CHECK(pool(IntegerOp::kAvgPool2d, 14, 10, {{2, 2}, {2, 2}, {0, 0}, {1, 1}, 1, false, true}, 7, 5) == 0);
  CHECK(pool(IntegerOp::kAvgPool2d, 14, 11, {{3, 2}, {2, 1}, {1, 1}, {1, 1}, 1, false, true}, 7, 12) == 0);
  CHECK(pool(IntegerOp::kMaxPool2d, 14, 10, {{2, 2}, {2, 2}, {0, 0}, {1, 1}, 1, false, true}, 7, 5) == 0);
  CHECK(pool(IntegerOp::kMaxPool2d, 14, 11, {{3, 3}, {2, 2}, {1, 1}, {1, 1}, 1, false, true}, 7, 6) == 0);
  CHECK(pool(IntegerOp::kMaxPool2d, 14, 11, {{3, 2}, {2, 2}, {0, 0}, {2, 2}, 1, false, true}, 5, 5) == 0);
  CHECK(pool(IntegerOp::kMaxPool2d, 14, 11, {{3, 2}, {2, 3}, {1, 1}, {1, 1}, 1, false, true}, 7, 4) == 0);
  CHECK(pool(IntegerOp::kMaxPool2d, 14, 10, {{3, 3}, {2, 2}, {0, 0}, {1, 1}, 1, true, true}, 7, 5) == 0);
}

TEST_CASE("reference: the input is rounded as torch 2.13 rounds it, or as older ones do", "[deploy][reference]") {
  torch::manual_seed(6);
  for (const int32_t zero_point : {-128, -11, 0, 73, 127}) {
    IntegerGraph graph = start(1, 64, 65, false);
    graph.nodes[0].zero_point = zero_point;
    const at::Tensor images = networks::images(graph, 20);
    const QuietQuantizedTensors quiet;
    const at::Tensor theirs = at::quantize_per_tensor(images, graph.nodes[0].scale, zero_point + 128, torch::kQUInt8)
                                  .int_repr()
                                  .to(torch::kInt) -
                              128;
    CHECK(run_integer(graph, images).codes.to(torch::kInt).equal(theirs));
    const at::Tensor older = (torch::round(images * (1.0F / graph.nodes[0].scale)) + zero_point).clamp(-128, 127);
    CHECK(run_integer(graph, images, InputRule::kRoundThenAdd).codes.equal(older.to(torch::kChar)));
    CHECK((zero_point != -128 || older.to(torch::kInt).equal(theirs)));
  }
}

TEST_CASE("reference: instruction set and thread count change no bit", "[deploy][reference]") {
  torch::manual_seed(7);
  const IntegerGraph graph = lower(networks::mobilenet());
  const at::Tensor images = networks::images(graph, 9);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  torchslim::core::force_cpu_capability(CpuCapability::kPortable);
  const IntegerResult portable = run_integer(graph, images);
  torchslim::core::force_cpu_capability(std::nullopt);
  at::set_num_threads(threads);
  const IntegerResult best = run_integer(graph, images);
  CHECK(portable.codes.equal(best.codes));
  CHECK(portable.values.equal(best.values));
}

TEST_CASE("reference: wrong images are refused", "[deploy][reference]") {
  const IntegerGraph graph = start(3, 4, 4, false);
  CHECK_THROWS_WITH(run_integer(graph, torch::zeros({2, 3, 4, 5})),
                    ContainsSubstring("[3, 4, 4]") && ContainsSubstring("[2, 3, 4, 5]"));
  CHECK_THROWS_WITH(run_integer(graph, torch::zeros({2, 3, 4, 4}, torch::kDouble)),
                    ContainsSubstring("must be float32, got Double"));
  CHECK_THROWS_WITH(run_integer(graph, torch::full({2, 3, 4, 4}, NAN)), ContainsSubstring("NaN or infinity"));
  CHECK_THROWS_WITH(run_integer({}, torch::zeros({1})), ContainsSubstring("empty"));
}

TEST_CASE("reference: transposed convolutions are ATen's in float64, requantised", "[deploy][reference]") {
  const bool ties = GENERATE(false, true);
  const int64_t groups = GENERATE(1, 2);
  torch::manual_seed(10 + groups + (ties ? 1 : 0));
  for (int trial = 0; trial < 8; ++trial) {
    torchslim::graph::Window w;
    for (int d = 0; d < 2; ++d) {
      const auto random = [](int64_t low, int64_t high) { return torch::randint(low, high, {}).item<int64_t>(); };
      w.kernel[d] = random(1, 5), w.stride[d] = random(1, 4), w.dilation[d] = random(1, 3);
      w.padding[d] = random(0, w.kernel[d]), w.output_padding[d] = random(0, std::max(w.stride[d], w.dilation[d]));
    }
    w.groups = groups;
    IntegerGraph graph = start(4, 5, 6, ties);
    append_transposed(graph, 6, w, ties, trial % 2 == 0);
    const IntegerNode& node = graph.nodes[1];
    if (node.shape[2] < 1 || node.shape[3] < 1) {
      continue;
    }
    const auto codes = run_integer_nodes(graph, random_images(graph, 3));
    const at::Tensor steps = codes[0].to(torch::kDouble) - graph.nodes[0].zero_point;
    const at::Tensor weight = torchslim::graph::transposed_weight(node.codes.to(torch::kDouble), groups);
    const at::Tensor sums = torch::conv_transpose2d(steps, weight, node.bias_codes.to(torch::kDouble), w.stride,
                                                    w.padding, w.output_padding, groups, w.dilation);
    const at::Tensor multiplier = (node.weight_scale * graph.nodes[0].scale * (1.0F / node.scale)).view({-1, 1, 1});
    const at::Tensor expected =
        ((sums.to(torch::kFloat) * multiplier).round() + node.zero_point).clamp(node.clamp_min, node.clamp_max);
    CHECK(codes[1].to(torch::kFloat).equal(expected));
  }
}
