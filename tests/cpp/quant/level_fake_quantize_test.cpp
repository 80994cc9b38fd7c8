// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/level_fake_quantize.h>
#include <torchslim/quant/levels.h>

#include <limits>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::quant::level_fake_quantize;

namespace {

const at::Tensor& one() {
  static const auto tensor = at::scalar_tensor(1.0);
  return tensor;
}

// One element at a time, as the header writes it.
at::Tensor written_out(const at::Tensor& x, const at::Tensor& levels, float scale) {
  auto y = at::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double v = x.flatten()[i].item<float>() * (1.0f / scale);
    int64_t nearest = 0;
    for (int64_t k = 1; k < levels.numel(); ++k) {
      const double middle = (levels[k - 1].item<double>() + levels[k].item<double>()) / 2;
      nearest = v > middle || (v == middle && k % 2 == 0) ? k : nearest;
    }
    y.flatten()[i] = levels[nearest].item<float>() * scale;
  }
  return y;
}

at::Tensor gradient(const at::Tensor& y, const at::Tensor& x) {
  return torch::autograd::grad({y}, {x}, {at::ones_like(y)})[0];
}

}  // namespace

TEMPLATE_TEST_CASE("level_fake_quantize: half-way goes to the even index", "[quant][level_fake_quantize]", float,
                   double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto levels = at::tensor({-1.0f, 0.0f, 1.0f, 3.0f});
  const auto x = at::tensor({-0.5, 0.5, 2.0, 1.9}, at::kDouble).to(dtype);
  const auto expected = at::tensor({-1.0, 1.0, 1.0, 1.0}, at::kDouble).to(dtype);
  CHECK(at::equal(level_fake_quantize(x, levels, one()), expected));
}

TEST_CASE("level_fake_quantize: equals the written-out loop", "[quant][level_fake_quantize]") {
  const int64_t count = GENERATE(1, 2, 7, 16, 17, 40);
  const auto levels = std::get<0>(at::randn({count}).sort());
  const auto x = at::randn({6, 50}).t();
  CHECK(at::equal(level_fake_quantize(x, levels, at::scalar_tensor(0.7)), written_out(x.contiguous(), levels, 0.7f)));
}

TEST_CASE("level_fake_quantize: whole levels round as fake_quantize", "[quant][level_fake_quantize]") {
  const auto x = at::arange(-40, 40, at::kFloat).mul(0.0625);
  const auto expected = torchslim::quant::fake_quantize(x, 0.125, 0, -8, 7);
  CHECK(at::equal(level_fake_quantize(x, at::arange(-8, 8, at::kFloat), at::scalar_tensor(0.125)), expected));
}

TEST_CASE("level_fake_quantize: a scale for each channel", "[quant][level_fake_quantize]") {
  const auto levels = torchslim::quant::apot_levels(4);
  const int64_t axis = GENERATE(0, 1, 2);
  const auto x = at::randn({5, 6, 7});
  const auto scale = at::rand({x.size(axis)}) + 0.2;
  const auto y = level_fake_quantize(x, levels, scale, axis);
  for (int64_t c = 0; c < x.size(axis); ++c) {
    CHECK(at::equal(y.select(axis, c), level_fake_quantize(x.select(axis, c), levels, scale[c])));
  }
}

TEMPLATE_TEST_CASE("level_fake_quantize: gradients, clipped and passed through", "[quant][level_fake_quantize][ste]",
                   float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto levels = torchslim::quant::apot_levels(4);
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto x = at::tensor({-2.1, -2.0, 0.3, 2.0, 2.1, nan}, at::kDouble).to(dtype).requires_grad_();
  const at::Tensor clipped = level_fake_quantize(x, levels, at::scalar_tensor(2.0));
  CHECK(at::equal(gradient(clipped, x), at::tensor({0, 1, 1, 1, 0, 0}).to(dtype)));
  CHECK(clipped[5].isnan().item<bool>());
  const auto passed = level_fake_quantize(x, levels, at::scalar_tensor(2.0), std::nullopt, "passthrough");
  CHECK(at::equal(gradient(passed, x), at::ones_like(x)));
}

TEST_CASE("level_fake_quantize: instruction sets give the same bits", "[quant][level_fake_quantize]") {
  using torchslim::core::CpuCapability;
  using torchslim::core::force_cpu_capability;
  const auto x = at::randn({1003}).requires_grad_();
  const auto levels = std::get<0>(at::randn({GENERATE(9, 90)}).sort());
  force_cpu_capability(CpuCapability::kPortable);
  const auto portable = level_fake_quantize(x, levels, one());
  force_cpu_capability(std::nullopt);
  const auto best = level_fake_quantize(x, levels, one());
  CHECK(at::equal(portable, best));
  CHECK(at::equal(gradient(portable, x), gradient(best, x)));
}

TEST_CASE("level_fake_quantize: shapes without elements or dimensions", "[quant][level_fake_quantize]") {
  const auto levels = torchslim::quant::apot_levels(4);
  const auto empty = at::empty({0, 3}).requires_grad_();
  CHECK(gradient(level_fake_quantize(empty, levels, one()), empty).sizes() == empty.sizes());
  CHECK(level_fake_quantize(at::scalar_tensor(7.0), levels, one()).item<float>() == 1.0f);
}

TEST_CASE("level_fake_quantize: a bad argument is named with its value", "[quant][level_fake_quantize]") {
  const auto x = at::zeros({2, 4});
  const auto levels = torchslim::quant::apot_levels(4);
  CHECK_THROWS_WITH(
      level_fake_quantize(x, levels.flip(0), one()),
      ContainsSubstring("torchslim::level_fake_quantize: levels must ascend strictly, got 1 and then 0.8"));
  CHECK_THROWS_WITH(level_fake_quantize(x, levels, -one()), ContainsSubstring("scale must be > 0, got -1"));
  CHECK_THROWS_WITH(level_fake_quantize(x, levels, at::ones({4}), 2), ContainsSubstring("axis must be in [-2, 1]"));
  CHECK_THROWS_WITH(level_fake_quantize(x, levels, one(), std::nullopt, "none"), ContainsSubstring("got `none`"));
  CHECK_THROWS_AS(level_fake_quantize(x, levels.slice(0, 0, 0), one()), c10::ValueError);
  CHECK_THROWS_AS(level_fake_quantize(x.to(at::kInt), levels, one()), c10::TypeError);
}

TEST_CASE("level_fake_quantize: double backward is refused by name", "[quant][level_fake_quantize][ste]") {
  const auto x = at::randn({8}).requires_grad_();
  const auto y = level_fake_quantize(x, torchslim::quant::apot_levels(4), one()).square().sum();
  const auto grad = torch::autograd::grad({y}, {x}, {}, std::nullopt, /*create_graph=*/true)[0];
  CHECK_THROWS_WITH(grad.sum().backward(), ContainsSubstring("torchslim::level_fake_quantize: the gradient cannot"));
}
