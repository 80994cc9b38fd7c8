// SPDX-License-Identifier: BSD-3-Clause
#include <torch/csrc/jit/frontend/tracer.h>
#include <torchslim/quant/fake_quantize.h>

#include <limits>

#include "core/cpu_dispatch.h"
#include "core/large_outputs.h"
#include "cpp/catch.hpp"

using torchslim::quant::clamp_fake_quantize;
using torchslim::quant::fake_quantize;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One element at a time, as the header writes it.
at::Tensor written_out(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                       int64_t quant_max, int64_t axis) {
  const auto rows = x.movedim(axis, 0).contiguous();
  auto result = at::empty_like(rows);
  const int64_t inner = rows.numel() / rows.size(0);
  for (int64_t i = 0; i < rows.numel(); ++i) {
    const float s = scale[i / inner].item<float>();
    const float z = zero_point[i / inner].item<float>();
    const float code = std::nearbyint(rows.flatten()[i].item<float>() * (1.0f / s)) + z;
    const float clamped = std::min<float>(std::max<float>(code, quant_min), quant_max);
    result.flatten()[i] = (clamped - z) * s;
  }
  return result.movedim(0, axis);
}

at::Tensor gradient(const at::Tensor& y, const at::Tensor& x, const at::Tensor& grad) {
  return torch::autograd::grad({y}, {x}, {grad})[0];
}

}  // namespace

TEMPLATE_TEST_CASE("fake_quantize: ties go to even", "[quant][fake_quantize]", float, double, c10::BFloat16,
                   c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = at::tensor({0.5, 1.5, 2.5, -0.5, -1.5}, at::kDouble).to(dtype);
  const auto expected = at::tensor({0.0, 2.0, 2.0, 0.0, -2.0}, at::kDouble).to(dtype);
  CHECK(at::equal(fake_quantize(x, 1.0, 0, -8, 7), expected));
}

TEMPLATE_TEST_CASE("fake_quantize: NaN stays, infinity saturates, neither has a gradient", "[quant][fake_quantize]",
                   float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = at::tensor({kNan, kInfinity, -kInfinity}, at::kDouble).to(dtype).requires_grad_();
  const bool per_channel = GENERATE(false, true);
  const at::Tensor y = per_channel ? fake_quantize(x, at::full({3}, 0.5), at::ones({3}, at::kInt), -8, 7, 0)
                                   : fake_quantize(x, 0.5, 1, -8, 7);
  CHECK(y[0].isnan().item<bool>());
  CHECK(at::equal(y.slice(0, 1), at::tensor({3.0, -4.5}, at::kDouble).to(dtype)));
  CHECK(at::equal(gradient(y, x, at::ones_like(x)), at::zeros_like(x)));
}

TEMPLATE_TEST_CASE("fake_quantize: outputs written past the cache have the bits of ATen", "[quant][fake_quantize]",
                   float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const int64_t channels = (16 << 20) / sizeof(TestType) / 35 + 1;
  const auto x = (at::randn({5, channels, 7}) * 4).to(dtype).requires_grad_();  // runs of 7: few are aligned
  const auto grad = at::randn(x.sizes()).to(dtype);
  REQUIRE(torchslim::core::worth_streaming(x.nbytes()));
  const auto scale = at::rand({channels}) * 0.05 + 0.01;
  const auto zero_point = at::randint(-128, 128, {channels}, at::kInt);
  const bool per_channel = GENERATE(false, true);
  const auto ours =
      per_channel ? fake_quantize(x, scale, zero_point, -128, 127, 1) : fake_quantize(x, 0.04, 3, -128, 127);
  const auto aten = per_channel ? at::fake_quantize_per_channel_affine(x, scale, zero_point, 1, -128, 127)
                                : at::fake_quantize_per_tensor_affine(x, 0.04, 3, -128, 127);
  CHECK(at::equal(ours, aten));
  CHECK(at::equal(gradient(ours, x, grad), gradient(aten, x, grad)));
}

TEMPLATE_TEST_CASE("fake_quantize: the bits of ATen, forward and backward", "[quant][fake_quantize][ste]", float,
                   double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  at::set_num_threads(GENERATE(1, 2));
  auto x = (at::randn({3, 40, 31, 17}) * 4).to(dtype);
  const auto layout = GENERATE(at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast);
  x = x.contiguous(layout).requires_grad_();
  const auto grad = at::randn(x.sizes()).to(dtype);
  SECTION("one grid") {
    const auto ours = fake_quantize(x, 0.0371, 3, -128, 127);
    const auto aten = at::fake_quantize_per_tensor_affine(x, 0.0371, 3, -128, 127);
    CHECK(at::equal(ours, aten));
    CHECK(ours.strides() == x.strides());
    CHECK(at::equal(gradient(ours, x, grad), gradient(aten, x, grad)));
  }
  SECTION("a grid for each channel") {
    const int64_t axis = GENERATE(0, 1, 2, 3);
    const auto scale = at::rand({x.size(axis)}) * 0.1 + 0.01;
    const auto zero_point = at::randint(-128, 128, {x.size(axis)}, at::kInt);
    const auto ours = fake_quantize(x, scale, zero_point, -128, 127, axis);
    const auto aten = at::fake_quantize_per_channel_affine(x, scale, zero_point, axis, -128, 127);
    CHECK(at::equal(ours, aten));
    CHECK(at::equal(gradient(ours, x, grad), gradient(aten, x, grad)));
  }
}

TEST_CASE("fake_quantize: equals the written-out loop on strided tensors", "[quant][fake_quantize]") {
  const auto x = at::randn({5, 6, 7}).slice(1, 0, 6, 2).transpose(0, 2);
  const int64_t axis = GENERATE(0, 1, 2);
  const auto scale = at::rand({x.size(axis)}) * 0.3 + 0.05;
  const auto zero_point = at::randint(-8, 8, {x.size(axis)}, at::kLong);
  CHECK(at::equal(fake_quantize(x, scale, zero_point, -8, 7, axis), written_out(x, scale, zero_point, -8, 7, axis)));
}

TEST_CASE("fake_quantize: instruction sets give the same bits", "[quant][fake_quantize]") {
  using torchslim::core::CpuCapability;
  using torchslim::core::force_cpu_capability;
  const auto x = (at::randn({1003}) * 3).requires_grad_();
  const auto run = [&] {
    const auto y = fake_quantize(x, 0.02, -5, -128, 127);
    return std::make_pair(y.detach(), gradient(y, x, at::ones_like(x)));
  };
  force_cpu_capability(CpuCapability::kPortable);
  const auto portable = run();
  force_cpu_capability(std::nullopt);
  const auto best = run();
  CHECK(at::equal(portable.first, best.first));
  CHECK(at::equal(portable.second, best.second));
}

TEST_CASE("fake_quantize: shapes without elements or dimensions", "[quant][fake_quantize]") {
  const auto empty = at::empty({0, 3}).requires_grad_();
  CHECK(fake_quantize(empty, 1.0, 0, -8, 7).sizes() == empty.sizes());
  CHECK(gradient(fake_quantize(empty, 1.0, 0, -8, 7), empty, empty.detach()).sizes() == empty.sizes());
  CHECK(fake_quantize(at::scalar_tensor(2.4), 1.0, 0, -8, 7).item<float>() == 2.0f);
}

TEST_CASE("clamp_fake_quantize: the activation, then fake_quantize", "[quant][fake_quantize][ste]") {
  const auto x = at::linspace(-3, 9, 5001).requires_grad_();
  const auto scale = at::scalar_tensor(0.04);
  const auto zero_point = at::scalar_tensor(-120, at::kInt);
  const bool six = GENERATE(false, true);
  const auto activated = six ? at::relu6(x) : at::relu(x);
  const auto limit = six ? std::optional<double>(6.0) : std::nullopt;
  const auto fused = clamp_fake_quantize(x, scale, zero_point, -128, 127, 0.0, limit);
  const auto separate = at::fake_quantize_per_tensor_affine(activated, 0.04, -120, -128, 127);
  CHECK(at::equal(fused, separate));
  const auto grad = at::randn_like(x);
  CHECK(at::equal(gradient(fused, x, grad), gradient(separate, x, grad)));
}

TEST_CASE("fake_quantize: a bad argument is named with its value", "[quant][fake_quantize]") {
  const auto x = at::zeros({2, 4});
  const auto one = at::ones({4});
  const auto zero = at::zeros({4}, at::kInt);
  CHECK_THROWS_WITH(fake_quantize(x, -1.0, 0, -8, 7),
                    ContainsSubstring("torchslim::fake_quantize: scale must be > 0, got -1"));
  CHECK_THROWS_WITH(fake_quantize(x, kNan, 0, -8, 7), ContainsSubstring("scale must be > 0, got nan"));
  CHECK_THROWS_WITH(fake_quantize(x, 1.0, 8, -8, 7), ContainsSubstring("[quant_min, quant_max] = [-8, 7], got 8"));
  CHECK_THROWS_WITH(fake_quantize(x, 1.0, 0, 7, -8), ContainsSubstring("quant_min 7 > quant_max -8"));
  CHECK_THROWS_WITH(fake_quantize(x, one, zero, -8, 7, 2), ContainsSubstring("axis must be in [-2, 1]"));
  CHECK_THROWS_WITH(fake_quantize(x, one, zero, -8, 7, 0), ContainsSubstring("shape [2], got shape [4]"));
  CHECK_THROWS_WITH(fake_quantize(x, -one, zero, -8, 7, 1),
                    ContainsSubstring("scale must be > 0, got -1 in channel 0"));
  CHECK_THROWS_AS(fake_quantize(x, -1.0, 0, -8, 7), c10::ValueError);
  CHECK_THROWS_AS(fake_quantize(x.to(at::kInt), 1.0, 0, -8, 7), c10::TypeError);
}

TEST_CASE("fake_quantize: double backward is refused by name", "[quant][fake_quantize][ste]") {
  const auto x = at::randn({8}).requires_grad_();
  const auto y = fake_quantize(x, 0.1, 0, -8, 7).square().sum();
  const auto grad = torch::autograd::grad({y}, {x}, {}, std::nullopt, /*create_graph=*/true)[0];
  CHECK_THROWS_WITH(grad.sum().backward(),
                    ContainsSubstring("torchslim::fake_quantize: the gradient cannot be differentiated again"));
}

TEST_CASE("fake_quantize: one node of a trace", "[quant][fake_quantize]") {
  const auto traced = torch::jit::tracer::trace(
      {at::randn({4})},
      [](torch::jit::Stack inputs) -> torch::jit::Stack {
        return {fake_quantize(inputs[0].toTensor(), 0.1, 0, -8, 7)};
      },
      [](const at::Tensor&) { return ""; });
  int ops = 0;
  for (const auto* node : traced.first->graph->nodes()) {
    ops += node->kind().is_prim() ? 0 : 1;
    if (!node->kind().is_prim()) {
      CHECK(std::string(node->kind().toQualString()) == "torchslim::fake_quantize");
    }
  }
  CHECK(ops == 1);
}
