// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/block_float_fake_quantize.h>
#include <torchslim/quant/float_fake_quantize.h>

#include <cmath>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::quant::block_float_fake_quantize;
using torchslim::quant::FloatFormat;

namespace {

// One block after another along dimension 0, each with the scale of its largest element.
at::Tensor written_out(const at::Tensor& x, const FloatFormat& format, int64_t block_size) {
  auto y = at::empty_like(x);
  for (int64_t i = 0; i < x.size(0); i += block_size) {
    for (int64_t j = 0; j < x.size(1); ++j) {
      const auto block = x.slice(0, i, i + block_size).select(1, j);
      const int exponent = std::ilogb(block.abs().max().item<double>()) - std::ilogb(format.max());
      const double scale = std::ldexp(1.0, exponent);
      y.slice(0, i, i + block_size)
          .select(1, j)
          .copy_(torchslim::quant::float_fake_quantize(block.to(at::kDouble) / scale, format) * scale);
    }
  }
  return y;
}

}  // namespace

TEST_CASE("block_float_fake_quantize: each block has the scale of its largest element", "[quant][block_float]") {
  const auto format =
      GENERATE(FloatFormat::e4m3fn(), FloatFormat::e5m2(), FloatFormat::minifloat(3, 2), FloatFormat::minifloat(2, 3),
               FloatFormat::minifloat(2, 1), FloatFormat::minifloat(0, 7));
  const auto x = at::randn({64, 33}) * at::exp(at::randn({64, 33}));
  CHECK(at::equal(block_float_fake_quantize(x, format, 32, 0), written_out(x, format, 32)));
  CHECK(at::equal(block_float_fake_quantize(x.t(), format), written_out(x, format, 32).t()));
}

TEST_CASE("block_float_fake_quantize: NaN stays, infinity saturates, the rest does not notice",
          "[quant][block_float]") {
  const auto x = at::tensor({1.0f, float(NAN), float(INFINITY), -float(INFINITY)}).requires_grad_();
  const auto y = block_float_fake_quantize(x, FloatFormat::minifloat(2, 1), 4);
  CHECK(y[0].item<float>() == 1.0f);
  CHECK(y[1].isnan().item<bool>());
  CHECK(at::equal(y.slice(0, 2), at::tensor({1.5f, -1.5f})));
  const auto grad = torch::autograd::grad({y}, {x}, {at::ones_like(y)})[0];
  CHECK(at::equal(grad, at::tensor({1.0f, 0.0f, 0.0f, 0.0f})));
}

TEST_CASE("block_float_fake_quantize: instruction sets give the same bits", "[quant][block_float]") {
  using torchslim::core::CpuCapability;
  using torchslim::core::force_cpu_capability;
  const auto x = at::randn({64, 99});
  const int64_t axis = GENERATE(0, 1);
  const auto run = [&] {
    return block_float_fake_quantize(x, FloatFormat::minifloat(2, 1), axis == 0 ? 32 : 33, axis);
  };
  force_cpu_capability(CpuCapability::kPortable);
  const auto portable = run();
  force_cpu_capability(std::nullopt);
  CHECK(at::equal(portable, run()));
}

TEST_CASE("block_float_fake_quantize: a bad argument is named with its value", "[quant][block_float]") {
  const auto x = at::zeros({2, 4});
  const auto format = FloatFormat::e4m3fn();
  CHECK_THROWS_WITH(block_float_fake_quantize(x, format, 3),
                    ContainsSubstring("block_size 3 must divide the size of dimension 1, got 4"));
  CHECK_THROWS_WITH(block_float_fake_quantize(x, format, 2, 2), ContainsSubstring("axis must be in [-2, 1]"));
  CHECK_THROWS_AS(block_float_fake_quantize(x.to(at::kInt), format, 2), c10::TypeError);
}
