// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/float_fake_quantize.h>

#include <limits>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::quant::float_fake_quantize;
using torchslim::quant::FloatFormat;

namespace {

at::Tensor gradient(const at::Tensor& y, const at::Tensor& x) {
  return torch::autograd::grad({y}, {x}, {at::ones_like(y)})[0];
}

// Every number of a type of two bytes.
at::Tensor all_patterns(at::ScalarType type) {
  return at::arange(-32768, 32768, at::kInt).to(at::kShort).view(type).to(at::kFloat);
}

// The bits as integers, one NaN for all.
at::Tensor bits(const at::Tensor& x) { return at::where(x.isnan(), at::full_like(x, NAN), x).view(at::kInt); }

}  // namespace

TEST_CASE("float_fake_quantize: the bits of torch's casts", "[quant][float_fake_quantize]") {
  const auto [type, format] =
      GENERATE(table<at::ScalarType, FloatFormat>({{at::kHalf, FloatFormat::fp16(false)},
                                                   {at::kBFloat16, FloatFormat::bf16(false)},
                                                   {at::kFloat8_e4m3fn, FloatFormat::e4m3fn()},
                                                   {at::kFloat8_e5m2, FloatFormat::e5m2(false)}}));
  for (const auto& x : {all_patterns(at::kHalf), all_patterns(at::kBFloat16), at::randn({10001})}) {
    CHECK(at::equal(bits(float_fake_quantize(x, format)), bits(x.to(type).to(at::kFloat))));
  }
}

TEMPLATE_TEST_CASE("float_fake_quantize: ties go to even, what is too large saturates without a gradient",
                   "[quant][float_fake_quantize][ste]", float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto x = at::tensor({0.25, 0.75, 2.5, 5.0, 6.9, 7.0, -8.0, nan}, at::kDouble).to(dtype).requires_grad_();
  const at::Tensor y = float_fake_quantize(x, FloatFormat::minifloat(2, 1));
  CHECK(at::equal(y.slice(0, 0, 7), at::tensor({0.0, 1.0, 2.0, 4.0, 6.0, 6.0, -6.0}, at::kDouble).to(dtype)));
  CHECK(y[7].isnan().item().toBool());
  CHECK(at::equal(gradient(y, x), at::tensor({1, 1, 1, 1, 1, 0, 0, 0}).to(dtype)));
  const auto passed = float_fake_quantize(x, FloatFormat::minifloat(2, 1), std::nullopt, std::nullopt, "passthrough");
  CHECK(at::equal(gradient(passed, x), at::ones_like(x)));
}

TEST_CASE("float_fake_quantize: a scale for each channel", "[quant][float_fake_quantize]") {
  const auto format = FloatFormat::e4m3fn();
  const int64_t axis = GENERATE(0, 1, 2);
  const auto x = at::randn({5, 6, 7});
  const auto scale = at::rand({x.size(axis)}) * 0.01 + 0.001;
  const auto y = float_fake_quantize(x, format, scale, axis);
  for (int64_t c = 0; c < x.size(axis); ++c) {
    CHECK(at::equal(y.select(axis, c), float_fake_quantize(x.select(axis, c), format, scale[c])));
  }
}

TEST_CASE("float_fake_quantize: instruction sets give the same bits", "[quant][float_fake_quantize]") {
  using torchslim::core::CpuCapability;
  using torchslim::core::force_cpu_capability;
  const auto x = (at::randn({1003}) * 300).requires_grad_();
  const auto format = GENERATE(FloatFormat::e4m3fn(false), FloatFormat::e5m2(), FloatFormat::minifloat(0, 7));
  force_cpu_capability(CpuCapability::kPortable);
  const auto portable = float_fake_quantize(x, format);
  force_cpu_capability(std::nullopt);
  const auto best = float_fake_quantize(x, format);
  CHECK(at::equal(bits(portable), bits(best)));
  CHECK(at::equal(gradient(portable, x), gradient(best, x)));
}

TEST_CASE("float_fake_quantize: a bad argument is named with its value", "[quant][float_fake_quantize]") {
  const auto x = at::zeros({2, 4});
  CHECK_THROWS_WITH(float_fake_quantize(x, {9, 2, 15, "none"}),
                    ContainsSubstring("torchslim::float_fake_quantize: exponent_bits must be in [0, 8]"));
  CHECK_THROWS_WITH(float_fake_quantize(x, FloatFormat::e5m2(), at::scalar_tensor(0.0)),
                    ContainsSubstring("scale must be > 0, got 0"));
  CHECK_THROWS_AS(float_fake_quantize(x, FloatFormat::e5m2(), std::nullopt, 0), c10::ValueError);
  CHECK_THROWS_AS(float_fake_quantize(x.to(at::kInt), FloatFormat::e5m2()), c10::TypeError);
}
