// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_stochastic.h>

#include "core/cpu_dispatch.h"
#include "core/philox.h"
#include "cpp/catch.hpp"

using torchslim::quant::fake_quantize_stochastic;

namespace {

at::Tensor seed_of(int64_t seed) { return at::scalar_tensor(seed, at::kLong); }

const auto kHalf = [] { return at::scalar_tensor(0.5f); };
const auto kZero = [] { return at::scalar_tensor(0, at::kInt); };

}  // namespace

TEST_CASE("fake_quantize_stochastic: the written-out loop", "[quant][stochastic]") {
  const auto x = at::randn({3, 37}) * 4;
  const auto y = fake_quantize_stochastic(x, kHalf(), kZero(), -8, 7, std::nullopt, seed_of(11)).flatten();
  for (int64_t i = 0; i < x.numel(); ++i) {
    float numbers[32];
    torchslim::core::philox_uniform(11, i / 32, numbers);
    const float value = x.flatten()[i].item<float>() * 2;
    const float whole = std::floor(value);
    const float code = whole + (numbers[i % 32] < value - whole ? 1.0f : 0.0f);
    CHECK(y[i].item<float>() == 0.5f * std::min(std::max(code, -8.0f), 7.0f));
  }
}

TEMPLATE_TEST_CASE("fake_quantize_stochastic: what lies on the grid stays, whatever the seed", "[quant][stochastic]",
                   float, double, c10::BFloat16, c10::Half) {
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = (at::arange(-8, 8) * 0.5).to(dtype);
  CHECK(at::equal(fake_quantize_stochastic(x, kHalf(), kZero(), -8, 7), x));
}

TEST_CASE("fake_quantize_stochastic: the same bits for any number of threads and instruction set",
          "[quant][stochastic]") {
  const auto x = at::randn({300, 401});
  const auto scale = at::rand({401}) + 0.1;
  const auto run = [&] { return fake_quantize_stochastic(x, scale, at::zeros({401}, at::kInt), -8, 7, 1, seed_of(5)); };
  at::set_num_threads(1);
  const auto expected = run();
  at::set_num_threads(2);
  CHECK(at::equal(run(), expected));
  torchslim::core::force_cpu_capability(torchslim::core::CpuCapability::kPortable);
  CHECK(at::equal(run(), expected));
  torchslim::core::force_cpu_capability(std::nullopt);
}

TEST_CASE("fake_quantize_stochastic: a generator gives new numbers in each call, and the same from the same state",
          "[quant][stochastic]") {
  const auto x = at::rand({1000});
  auto generator = at::detail::createCPUGenerator(3);
  const auto run = [&] { return fake_quantize_stochastic(x, kHalf(), kZero(), -8, 7, std::nullopt, generator); };
  const auto first = run();
  CHECK_FALSE(at::equal(run(), first));
  generator.set_current_seed(3);
  CHECK(at::equal(run(), first));
}

TEST_CASE("fake_quantize_stochastic: the gradient passes inside the grid", "[quant][stochastic][ste]") {
  const auto x = at::tensor({-9.0, -1.2, 0.3, 9.0}).requires_grad_();
  const auto y = fake_quantize_stochastic(x, kHalf(), kZero(), -8, 7);
  CHECK(at::equal(torch::autograd::grad({y.sum()}, {x})[0], at::tensor({0.0f, 1.0f, 1.0f, 0.0f})));
}

TEST_CASE("fake_quantize_stochastic: a seed of another type or shape is refused", "[quant][stochastic]") {
  const auto x = at::rand({4});
  CHECK_THROWS_AS(fake_quantize_stochastic(x, kHalf(), kZero(), -8, 7, std::nullopt, at::scalar_tensor(1.0)),
                  c10::TypeError);
  CHECK_THROWS_AS(fake_quantize_stochastic(x, kHalf(), kZero(), -8, 7, std::nullopt, at::zeros({2}, at::kLong)),
                  c10::ValueError);
}
