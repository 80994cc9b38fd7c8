// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/deploy/target.h>

#include "cpp/catch.hpp"

using namespace torchslim::deploy;

namespace {

// A layer with one input channel, between grids of `input_scale` and `output_scale`.
IntegerGraph one_layer(IntegerOp op, float input_scale, float weight_scale, float output_scale, int64_t groups = 1) {
  IntegerNode input, layer;
  input.scale = input_scale;
  layer.op = op;
  layer.layer = "body.up";
  layer.inputs = {0};
  layer.scale = output_scale;
  layer.window.groups = groups;
  layer.codes = torch::ones({1, 1, 1, 1}, torch::kChar);
  layer.weight_scale = torch::full({1}, weight_scale);
  return {{input, layer}};
}

std::string problem(const IntegerGraph& graph, const std::string& target) {
  return fit_target(graph, target).back().problem;
}

}  // namespace

TEST_CASE("target: a factor of requantisation is held to what XNNPACK takes", "[deploy][target]") {
  const float below = std::nextafter(256.0F, 0.0F), least = 0x1p-32F;
  CHECK(problem(one_layer(IntegerOp::kConv2d, 1, below, 1), "xnnpack").empty());
  CHECK(problem(one_layer(IntegerOp::kConv2d, 1, least, 1), "xnnpack").empty());
  CHECK_THAT(problem(one_layer(IntegerOp::kConv2d, 2, 128, 1), "xnnpack"), ContainsSubstring("got 256 to 256"));
  CHECK_THAT(problem(one_layer(IntegerOp::kLinear, 1, least / 2, 1), "xnnpack"), ContainsSubstring("got 1.16415e-10"));
  for (const char* target : {"qnnpack", "onnx"}) {
    CHECK(problem(one_layer(IntegerOp::kConv2d, 2, 128, 1), target).empty());
  }
}

TEST_CASE("target: transposed convolutions with groups", "[deploy][target]") {
  const IntegerGraph graph = one_layer(IntegerOp::kConvTranspose2d, 1, 1, 1, 2);
  CHECK_THAT(problem(graph, "xnnpack"), ContainsSubstring("transposed convolution with groups"));
  CHECK_THROWS_WITH(
      require_fit(graph, "xnnpack", "save"),
      ContainsSubstring("save: layer 'body.up' (conv_transpose2d): xnnpack has no transposed convolution"));
  CHECK_NOTHROW(require_fit(graph, "qnnpack", "save"));
  CHECK(problem(one_layer(IntegerOp::kConvTranspose2d, 1, 1, 1), "xnnpack").empty());
}

TEST_CASE("target: pools that QNNPACK computes otherwise are computed in float", "[deploy][target]") {
  IntegerNode pool;
  const auto arithmetic = [&pool](const char* target) { return fit_target({{pool}}, target)[0].arithmetic; };
  pool.op = IntegerOp::kMaxPool2d;
  pool.window.kernel = {3, 3};
  CHECK(arithmetic("qnnpack") == Arithmetic::kInteger);
  pool.window.padding = {0, 1};
  CHECK(arithmetic("qnnpack") == Arithmetic::kInteger);
  pool.window.dilation = {2, 1};
  CHECK(arithmetic("qnnpack") == Arithmetic::kFloatOnCodes);
  CHECK(arithmetic("onnx") == Arithmetic::kInteger);
  pool = IntegerNode();
  pool.op = IntegerOp::kAvgPool2d;
  CHECK(arithmetic("qnnpack") == Arithmetic::kFloatOnCodes);
  pool.op = IntegerOp::kFloat;
  CHECK(arithmetic("onnx") == Arithmetic::kFloat);
}

TEST_CASE("target: an unknown one lists those that are known", "[deploy][target]") {
  CHECK(known_targets() == std::vector<std::string>{"qnnpack", "onnx", "xnnpack"});
  CHECK_THROWS_WITH(fit_target({}, "tflite"), ContainsSubstring("one of qnnpack, onnx, xnnpack, got 'tflite'"));
}
