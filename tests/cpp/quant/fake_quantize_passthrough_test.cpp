// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_passthrough.h>

#include <limits>

#include "cpp/catch.hpp"

using torchslim::quant::fake_quantize;
using torchslim::quant::fake_quantize_passthrough;

TEMPLATE_TEST_CASE("fake_quantize_passthrough: the bits of fake_quantize, and the whole gradient",
                   "[quant][passthrough][ste]", float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = (at::randn({5, 7, 3}) * 10).to(dtype).requires_grad_();
  const auto scale = at::rand({7}) + 0.1;
  const auto zero_point = at::zeros({7}, at::kInt);
  const auto y = fake_quantize_passthrough(x, scale, zero_point, -8, 7, 1);
  CHECK(at::equal(y, fake_quantize(x, scale, zero_point, -8, 7, 1)));
  const auto grad = at::randn(x.sizes()).to(dtype);
  CHECK(at::equal(torch::autograd::grad({y}, {x}, {grad})[0], grad));
}

TEST_CASE("fake_quantize_passthrough: a scale that wants a gradient is refused", "[quant][passthrough]") {
  const auto scale = at::scalar_tensor(0.1f).requires_grad_();
  CHECK_THROWS_AS(fake_quantize_passthrough(at::rand({3}), scale, at::scalar_tensor(0, at::kInt), -8, 7),
                  c10::ValueError);
}
