// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/observe_fake_quantize.h>
#include <torchslim/quant/qparams.h>

#include <limits>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::quant::observe_channels;
using torchslim::quant::observe_fake_quantize;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct State {
  explicit State(at::IntArrayRef shape = {})
      : min_val(at::full(shape, kInfinity)),
        max_val(at::full(shape, -kInfinity)),
        scale(at::ones(shape)),
        zero_point(at::zeros(shape, at::kInt)) {}

  at::Tensor observe(const at::Tensor& x, std::optional<double> clamp_min = std::nullopt,
                     std::optional<double> clamp_max = std::nullopt) {
    return observe_fake_quantize(x, min_val, max_val, scale, zero_point, 0.01, -128, 127, false, clamp_min, clamp_max);
  }

  at::Tensor min_val, max_val, scale, zero_point;
};

}  // namespace

TEST_CASE("observe_fake_quantize: the first range sets the state, later ones move it", "[quant][observer]") {
  State state;
  state.observe(at::tensor({-1.0f, 1.55f}));
  CHECK(state.min_val.item<float>() == -1.0f);
  CHECK(state.max_val.item<float>() == 1.55f);
  CHECK(state.scale.item<float>() == 0.01f);
  CHECK(state.zero_point.item<int32_t>() == -28);
  state.observe(at::tensor({-2.0f, 1.55f}));
  CHECK(state.min_val.item<float>() == static_cast<float>(-1.0 + 0.01 * (-2.0 - -1.0)));
}

TEMPLATE_TEST_CASE("observe_fake_quantize: the activation, then ATen on the new grid", "[quant][observer][ste]", float,
                   double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = (at::randn({100, 1003}) * 5).to(dtype).requires_grad_();
  State state;
  const auto fused = state.observe(x, 0.0, 6.0);
  const auto separate = at::fake_quantize_per_tensor_affine(at::relu6(x), state.scale, state.zero_point, -128, 127);
  CHECK(at::equal(fused, separate));
  const auto grad = at::randn(x.sizes()).to(dtype);
  CHECK(at::equal(torch::autograd::grad({fused}, {x}, {grad})[0], torch::autograd::grad({separate}, {x}, {grad})[0]));
}

TEST_CASE("observe_fake_quantize: the same bits for any threads and instruction set", "[quant][observer]") {
  using torchslim::core::CpuCapability;
  const auto x = at::randn({500'009});
  State expected;
  at::set_num_threads(1);
  const auto y = expected.observe(x);
  at::set_num_threads(2);
  const auto capability = GENERATE(std::optional<CpuCapability>(), std::optional(CpuCapability::kPortable));
  torchslim::core::force_cpu_capability(capability);
  State state;
  CHECK(at::equal(state.observe(x), y));
  CHECK(at::equal(state.min_val, expected.min_val));
  CHECK(at::equal(state.max_val, expected.max_val));
  torchslim::core::force_cpu_capability(std::nullopt);
}

TEST_CASE("observe_fake_quantize: what is not finite changes nothing", "[quant][observer]") {
  State state;
  state.observe(at::tensor({-1.0f, 1.0f}));
  const auto before = state.scale.clone();
  const float bad = GENERATE(as<float>(), kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN());
  CHECK_THROWS_WITH(state.observe(at::tensor({0.0f, bad}), 0.0), ContainsSubstring("holds NaN or infinity"));
  CHECK_THROWS_AS(state.observe(at::tensor({0.0f, bad})), c10::ValueError);
  CHECK(at::equal(state.scale, before));
  CHECK(state.max_val.item<float>() == 1.0f);
}

TEST_CASE("observe_channels: each channel has its range", "[quant][observer]") {
  State state(at::IntArrayRef{3});
  const auto weight = at::randn({3, 4, 2});
  weight[1].zero_();
  observe_channels(weight, state.min_val, state.max_val, state.scale, state.zero_point, 0, 1.0, -127, 127, true);
  const auto grid = torchslim::quant::weight_qparams(weight);
  CHECK(at::equal(state.scale, grid.scale));
  CHECK(at::equal(state.zero_point, grid.zero_point));
  CHECK(at::equal(state.max_val, weight.amax({1, 2})));
}
