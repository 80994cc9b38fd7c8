// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>

#include "cpp/catch.hpp"

using torchslim::quant::fake_quantize;

TEMPLATE_TEST_CASE("fake_quantize: ties go to even", "[quant][fake_quantize]", float, double, c10::BFloat16,
                   c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = at::tensor({0.5, 1.5, 2.5, -0.5, -1.5}, at::kDouble).to(dtype);
  const auto expected = at::tensor({0.0, 2.0, 2.0, 0.0, -2.0}, at::kDouble).to(dtype);
  CHECK(at::equal(fake_quantize(x, 1.0, 0, -8, 7), expected));
}
