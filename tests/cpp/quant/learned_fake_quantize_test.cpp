// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/learned_fake_quantize.h>

#include <cmath>
#include <limits>

#include "core/cpu_dispatch.h"
#include "core/large_outputs.h"
#include "cpp/catch.hpp"

using torchslim::quant::learned_fake_quantize;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<at::Tensor> all_gradients(const at::Tensor& y, const std::vector<at::Tensor>& inputs,
                                      const at::Tensor& dy) {
  return torch::autograd::grad({y}, inputs, {dy});
}

// The gradients as the header writes them, in double, from x in one channel.
struct WrittenOut {
  at::Tensor x;
  double scale = 0;
  double zero_point = 0;
  double magnitude = 0;  // Σ |terms| of scale

  WrittenOut(const at::Tensor& values, const at::Tensor& dy, float s, float offset, int64_t quant_min,
             int64_t quant_max, bool clip)
      : x(at::empty_like(values)) {
    const double z = std::min<double>(std::max<double>(std::nearbyint(offset), quant_min), quant_max);
    const double low = quant_min - z;
    const double high = quant_max - z;
    for (int64_t i = 0; i < values.numel(); ++i) {
      const float v = values[i].item<float>() * (1.0f / s);
      const double steps = std::nearbyint(v);
      const double nearest = std::min(std::max(steps, low), high);
      const bool inside = clip ? v > low && v < high : nearest == steps;
      const double error = inside ? (clip ? 0 : nearest - v) : nearest;
      const double slope = dy[i].item<float>();
      x[i] = inside ? slope : 0;
      scale += slope * error;
      zero_point += inside ? 0 : -s * slope;
      magnitude += std::abs(slope * error);
    }
  }
};

}  // namespace

TEST_CASE("learned_fake_quantize: three gradients as written out", "[quant][learned_fake_quantize][ste]") {
  const bool clip = GENERATE(false, true);
  const float offset = GENERATE(0.0f, -2.7f, 2.5f, 3.5f, -900.0f);
  const auto x = (at::randn({501}) * 2).requires_grad_();
  const auto dy = at::randn({501});
  const auto scale = at::full({}, 0.23f).requires_grad_();
  const auto zero_point = at::full({}, offset).requires_grad_();
  const auto y = learned_fake_quantize(x, scale, zero_point, -8, 7, {}, "none", clip ? "clip" : "rounded");
  const auto whole = static_cast<int64_t>(std::max(std::nearbyint(offset), -8.0f));
  CHECK(at::equal(y, torchslim::quant::fake_quantize(x.detach(), 0.23f, whole, -8, 7)));
  const auto grads = all_gradients(y, {x, scale, zero_point}, dy);
  const WrittenOut expected(x.detach(), dy, 0.23f, offset, -8, 7, clip);
  CHECK(at::equal(grads[0], expected.x));
  CHECK(std::abs(grads[1].item<double>() - expected.scale) <= 1e-5 * expected.magnitude);
  CHECK(std::abs(grads[2].item<double>() - expected.zero_point) <= 1e-4);
}

TEMPLATE_TEST_CASE("learned_fake_quantize: channels are the sum of their own elements",
                   "[quant][learned_fake_quantize]", float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto layout = GENERATE(at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast);
  const int64_t axis = GENERATE(0, 1, -1);
  const auto x = (at::randn({3, 19, 37, 41}) * 3).to(dtype).contiguous(layout).requires_grad_();
  const auto dy = at::randn(x.sizes()).to(dtype);
  const auto scale = (at::rand({x.size(axis)}) * 0.3 + 0.05).requires_grad_();
  const auto zero_point = (at::rand({x.size(axis)}) * 8 - 4).requires_grad_();
  const auto y = learned_fake_quantize(x, scale, zero_point, -8, 7, axis, "per_channel");
  const auto grads = all_gradients(y, {x, scale, zero_point}, dy);
  for (int64_t c = 0; c < x.size(axis); ++c) {
    const auto part = x.detach().select(axis, c).contiguous().requires_grad_();
    const auto one = scale.detach()[c].clone().requires_grad_();
    const auto offset = zero_point.detach()[c].clone().requires_grad_();
    const auto alone = learned_fake_quantize(part, one, offset, -8, 7, {}, "numel");
    const auto expected = all_gradients(alone, {part, one, offset}, dy.select(axis, c));
    CHECK(at::allclose(y.select(axis, c), alone, 1e-6, 0));  // float64 has float32 values without channels
    CHECK(at::equal(grads[0].select(axis, c), expected[0]));
    CHECK(at::allclose(grads[1][c], expected[1], 1e-5, 1e-5));
    CHECK(at::allclose(grads[2][c], expected[2], 1e-5, 1e-6));
  }
}

TEST_CASE("learned_fake_quantize: the same bits for any number of threads", "[quant][learned_fake_quantize]") {
  const auto shape =
      GENERATE(std::vector<int64_t>{40, 7001}, std::vector<int64_t>{3, 100000}, std::vector<int64_t>{70000});
  const auto x = at::randn(shape).requires_grad_();
  const auto dy = at::randn(shape);
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(-1), std::optional<int64_t>(0));
  const auto scale = (axis ? at::rand({x.size(*axis)}) + 0.1 : at::full({}, 0.1)).requires_grad_();
  const auto zero_point = at::zeros_like(scale).requires_grad_();
  std::vector<std::vector<at::Tensor>> runs;
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    runs.push_back(all_gradients(learned_fake_quantize(x, scale, zero_point, -8, 7, axis), {x, scale, zero_point}, dy));
  }
  at::set_num_threads(1);
  for (const auto& run : runs) {
    for (int i = 0; i < 3; ++i) {
      CHECK(at::equal(run[i], runs[0][i]));
    }
  }
}

TEMPLATE_TEST_CASE("learned_fake_quantize: instruction sets give the same bits", "[quant][learned_fake_quantize]",
                   float, double, c10::BFloat16, c10::Half) {
  using torchslim::core::CpuCapability;
  using torchslim::core::force_cpu_capability;
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(0), std::optional<int64_t>(1));
  const auto x = (at::randn({21, 35}) * 2).to(dtype).requires_grad_();
  const auto dy = at::randn({21, 35}).to(dtype);
  const auto scale = (axis ? at::rand({x.size(*axis)}) + 0.1 : at::full({}, 0.1)).requires_grad_();
  const auto zero_point = at::full_like(scale, 1.2).requires_grad_();
  const auto run = [&] {
    return all_gradients(learned_fake_quantize(x, scale, zero_point, -8, 7, axis), {x, scale, zero_point}, dy);
  };
  force_cpu_capability(CpuCapability::kPortable);
  const auto portable = run();
  force_cpu_capability(std::nullopt);
  const auto best = run();
  for (int i = 0; i < 3; ++i) {
    CHECK(at::equal(portable[i], best[i]));
  }
}

TEST_CASE("learned_fake_quantize: large gradients are written past the cache with the same bits",
          "[quant][learned_fake_quantize]") {
  const auto x = at::randn({5, (16 << 20) / 4 / 35 + 1, 7}).requires_grad_();
  REQUIRE(torchslim::core::worth_streaming(x.nbytes()));
  const auto dy = at::randn(x.sizes());
  const auto scale = at::full({}, 0.1);
  const auto y = learned_fake_quantize(x, scale, at::zeros({}), -8, 7);
  const auto expected = torchslim::quant::fake_quantize(x, 0.1f, 0, -8, 7);
  CHECK(at::equal(y, expected));
  CHECK(at::equal(all_gradients(y, {x}, dy)[0], all_gradients(expected, {x}, dy)[0]));
}

TEST_CASE("learned_fake_quantize: what wants no gradient gets none", "[quant][learned_fake_quantize]") {
  const auto x = at::randn({10});
  const auto scale = at::full({1}, 0.1f).requires_grad_();
  const auto y = learned_fake_quantize(x, scale, at::zeros({1}, at::kInt), -8, 7);
  y.sum().backward();
  CHECK(scale.grad().sizes() == scale.sizes());
  CHECK_FALSE(x.grad().defined());
  CHECK_FALSE(learned_fake_quantize(x, scale.detach(), at::zeros({1}), -8, 7).requires_grad());
}

TEST_CASE("learned_fake_quantize: a bad argument is named with its value", "[quant][learned_fake_quantize]") {
  const auto x = at::zeros({2, 4});
  const auto one = at::ones({});
  const auto zero = at::zeros({});
  CHECK_THROWS_WITH(learned_fake_quantize(x, -one, zero, -8, 7),
                    ContainsSubstring("torchslim::learned_fake_quantize: scale must be > 0, got -1"));
  CHECK_THROWS_WITH(learned_fake_quantize(x, one, one * kNan, -8, 7), ContainsSubstring("got nan"));
  CHECK_THROWS_WITH(learned_fake_quantize(x, one, zero, 7, -8), ContainsSubstring("quant_min 7 > quant_max -8"));
  CHECK_THROWS_WITH(learned_fake_quantize(x, at::ones({4}), at::zeros({4}), -8, 7, 2),
                    ContainsSubstring("axis must be in [-2, 1]"));
  CHECK_THROWS_WITH(learned_fake_quantize(x, at::ones({4}), at::zeros({3}), -8, 7, 1),
                    ContainsSubstring("zero_point must have scale's shape [4], got shape [3]"));
  CHECK_THROWS_WITH(learned_fake_quantize(x, one, zero, -8, 7, {}, "paper"), ContainsSubstring("got `paper`"));
  CHECK_THROWS_WITH(learned_fake_quantize(x, one, zero, -8, 7, {}, "none", "lsq"), ContainsSubstring("got `lsq`"));
  CHECK_THROWS_WITH(learned_fake_quantize(x, one.to(at::kMeta), zero, -8, 7),
                    ContainsSubstring("scale must be on the input's device cpu, got meta"));
  CHECK_THROWS_AS(learned_fake_quantize(x, -one, zero, -8, 7), c10::ValueError);
  CHECK_THROWS_AS(learned_fake_quantize(x.to(at::kInt), one, zero, -8, 7), c10::TypeError);
}

TEST_CASE("learned_fake_quantize: double backward is refused by name", "[quant][learned_fake_quantize][ste]") {
  std::vector<at::Tensor> inputs{at::randn({8}), at::full({}, 0.1f), at::zeros({})};
  const int which = GENERATE(0, 1, 2);
  inputs[which].requires_grad_();
  const auto y = learned_fake_quantize(inputs[0], inputs[1], inputs[2], -8, 7).square().sum();
  const auto grad = torch::autograd::grad({y}, {inputs[which]}, {}, std::nullopt, /*create_graph=*/true)[0];
  CHECK_THROWS_WITH(grad.sum().backward(),
                    ContainsSubstring("torchslim::learned_fake_quantize: the gradient cannot be differentiated again"));
}

TEST_CASE("positive_scale: no number is a scale that is not positive", "[quant][learned_fake_quantize]") {
  const auto raw = at::tensor({0.5f, -0.25f, 0.0f, -0.0f, 1e-30f}).requires_grad_();
  const auto scale = torchslim::quant::positive_scale(raw);
  CHECK(at::equal(scale.slice(0, 0, 2), at::tensor({0.5f, 0.25f})));
  CHECK(scale.min().item<float>() > 0);
  CHECK(at::equal(all_gradients(scale, {raw}, at::ones({5}))[0], at::tensor({1.0f, -1.0f, 1.0f, 1.0f, 1.0f})));
}

TEST_CASE("trained_threshold_scale: exact powers of two", "[quant][learned_fake_quantize]") {
  const auto logs = at::arange(-40, 41, at::kFloat).requires_grad_();
  const auto scale = torchslim::quant::trained_threshold_scale(logs - 0.25, 127);
  for (int i = 0; i < 81; ++i) {
    CHECK(scale[i].item<float>() == std::ldexp(1.0f, i - 40 - 7));
  }
  CHECK(at::allclose(all_gradients(scale, {logs}, at::ones({81}))[0], scale.detach() * std::log(2.0), 1e-6, 0));
  CHECK_THROWS_WITH(torchslim::quant::trained_threshold_scale(logs, 100), ContainsSubstring("got quant_max 100"));
}

TEST_CASE("pact_scale: alpha learns from what it clips", "[quant][learned_fake_quantize][ste]") {
  const auto x = at::tensor({-1.0f, 0.4f, 2.0f, 5.0f}).requires_grad_();
  const auto alpha = at::full({}, 1.5f).requires_grad_();
  const auto scale = torchslim::quant::pact_scale(alpha, 0, 15);
  const auto y = learned_fake_quantize(x, scale, at::zeros({}, at::kInt), 0, 15, {}, "none", "clip");
  CHECK(at::allclose(y, at::tensor({0.0f, 0.4f, 1.5f, 1.5f})));
  const auto grads = all_gradients(y, {x, alpha}, at::tensor({1.0f, 2.0f, 3.0f, 4.0f}));
  CHECK(at::equal(grads[0], at::tensor({0.0f, 2.0f, 0.0f, 0.0f})));
  CHECK(grads[1].item<float>() == Approx(7.0f));
  CHECK_THROWS_WITH(torchslim::quant::pact_scale(alpha, 3, 3), ContainsSubstring("quant_min = quant_max = 3"));
}

TEST_CASE("trainable_range_qparams: both ends of the range learn", "[quant][learned_fake_quantize][ste]") {
  const auto low = at::full({}, -1.0f).requires_grad_();
  const auto range = at::full({}, 3.0f).requires_grad_();
  const auto [scale, zero_point] = torchslim::quant::trainable_range_qparams(low, range, 0, 15);
  const auto x = at::tensor({-9.0f, 0.45f, 9.0f});
  const auto y = learned_fake_quantize(x, scale, zero_point, 0, 15);
  CHECK(at::allclose(y, at::tensor({-1.0f, 0.4f, 2.0f})));
  const auto grads = all_gradients(y, {low, range}, at::tensor({10.0f, 1.0f, 100.0f}));
  CHECK(grads[0].item<float>() == Approx(110.0f));
  CHECK(grads[1].item<float>() == Approx(100.0f + (0.4f - 0.45f) / 3.0f));
}

TEST_CASE("rounded_zero_point: half to even, inside the grid", "[quant][learned_fake_quantize]") {
  const auto zero_point = at::tensor({-2.5f, -2.7f, 2.5f, 3.5f, 99.0f});
  const auto expected = at::tensor({-2, -3, 2, 4, 7}, at::kInt);
  CHECK(at::equal(torchslim::quant::rounded_zero_point(zero_point, -8, 7), expected));
  CHECK_THROWS_WITH(torchslim::quant::rounded_zero_point(zero_point * kNan, -8, 7),
                    ContainsSubstring("zero_point must be finite"));
}
