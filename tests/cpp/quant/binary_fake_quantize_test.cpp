// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/binary_fake_quantize.h>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::quant::binary_fake_quantize;
using torchslim::quant::ternary_fake_quantize;

namespace {

at::Tensor gradient(const at::Tensor& y, const at::Tensor& x) {
  return torch::autograd::grad({y}, {x}, {at::ones_like(y)})[0];
}

}  // namespace

TEMPLATE_TEST_CASE("binary_fake_quantize: the sign times the mean magnitude", "[quant][binary_fake_quantize][ste]",
                   float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = at::tensor({0.5, -1.5, 0.0, 2.0}, at::kDouble).to(dtype).requires_grad_();
  const at::Tensor y = binary_fake_quantize(x);
  CHECK(at::equal(y, at::tensor({1, -1, 1, 1}).to(dtype)));
  CHECK(at::equal(gradient(y, x), at::tensor({1, 0, 1, 0}).to(dtype)));
}

TEMPLATE_TEST_CASE("ternary_fake_quantize: 0 up to 0.7 of the mean magnitude", "[quant][binary_fake_quantize][ste]",
                   float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = at::tensor({0.5, -1.5, 0.0, 2.0}, at::kDouble).to(dtype).requires_grad_();
  const at::Tensor y = ternary_fake_quantize(x);
  CHECK(at::equal(y, at::tensor({0.0, -1.75, 0.0, 1.75}, at::kDouble).to(dtype)));
  CHECK(at::equal(gradient(y, x), at::ones_like(x)));
}

TEST_CASE("binary_fake_quantize: a mean for each channel", "[quant][binary_fake_quantize]") {
  const auto x = at::randn({5, 6, 7});
  const int64_t axis = GENERATE(0, 1, 2);
  const auto binary = binary_fake_quantize(x, axis);
  const auto ternary = ternary_fake_quantize(x, axis);
  for (int64_t c = 0; c < x.size(axis); ++c) {
    CHECK(at::allclose(binary.select(axis, c), binary_fake_quantize(x.select(axis, c).contiguous())));
    CHECK(at::allclose(ternary.select(axis, c), ternary_fake_quantize(x.select(axis, c).contiguous())));
  }
}

TEST_CASE("binary_fake_quantize: instruction sets give the same bits", "[quant][binary_fake_quantize]") {
  using torchslim::core::CpuCapability;
  using torchslim::core::force_cpu_capability;
  const auto x = at::randn({7, 1003});
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(0), std::optional<int64_t>(1));
  force_cpu_capability(CpuCapability::kPortable);
  const auto binary = binary_fake_quantize(x, axis);
  const auto ternary = ternary_fake_quantize(x, axis);
  force_cpu_capability(std::nullopt);
  CHECK(at::equal(binary, binary_fake_quantize(x, axis)));
  CHECK(at::equal(ternary, ternary_fake_quantize(x, axis)));
}

TEST_CASE("binary_fake_quantize: a bad argument is named with its value", "[quant][binary_fake_quantize]") {
  const auto x = at::zeros({2, 4});
  CHECK_THROWS_WITH(binary_fake_quantize(x, 2), ContainsSubstring("torchslim::binary_fake_quantize: axis must be in"));
  CHECK_THROWS_WITH(ternary_fake_quantize(x, std::nullopt, "x"), ContainsSubstring("got `x`"));
  CHECK_THROWS_AS(binary_fake_quantize(x.to(at::kInt)), c10::TypeError);
  CHECK(ternary_fake_quantize(at::empty({0, 3})).sizes() == at::IntArrayRef({0, 3}));
}
