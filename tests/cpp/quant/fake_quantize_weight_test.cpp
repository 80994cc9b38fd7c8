// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Context.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/fold.h>
#include <torchslim/quant/weight_grid.h>

#include <cmath>
#include <limits>
#include <optional>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::core::CpuCapability;
using torchslim::core::force_cpu_capability;
using torchslim::quant::fake_quantize_weight;
using torchslim::quant::quantize_weight;
using torchslim::quant::detail::fake_quantize_weight_composite;

namespace {

at::Tensor random_weight(at::IntArrayRef shape) {
  const at::Tensor weight = at::randn(shape);
  weight[0].zero_();
  return weight;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return at::equal(a.contiguous().view(at::kInt), b.contiguous().view(at::kInt));
}

}  // namespace

TEST_CASE("fake_quantize_weight: gives quantize_weight's codes times scale", "[quant][weight]") {
  at::manual_seed(1);
  const std::vector<std::vector<int64_t>> shapes = {{5, 3, 3, 3}, {16, 1, 3, 3}, {4, 64}, {1, 7}, {3, 1}};
  for (const auto& shape : shapes) {
    const at::Tensor weight = random_weight(shape);
    const auto [rounded, scale] = fake_quantize_weight(weight);
    const auto expected = quantize_weight(weight);
    CHECK(same_bits(scale, expected.scale));
    CHECK(same_bits(rounded, torchslim::quant::dequantize_weight(expected.codes, expected.scale)));
  }
}

TEST_CASE("fake_quantize_weight: with fewer bits it gives round_weight's codes times scale", "[quant][weight]") {
  at::manual_seed(1);
  const at::Tensor weight = at::randn({5, 37});
  for (int64_t bits = 2; bits <= 8; ++bits) {
    const auto [rounded, scale] = fake_quantize_weight(weight, bits);
    const auto expected = torchslim::quant::round_weight(weight, torchslim::quant::WeightGridOptions().bits(bits));
    CHECK(at::equal(rounded, expected.weight));
    CHECK(at::equal(scale, expected.scale));
    const auto [composite, composite_scale] = fake_quantize_weight_composite(weight, bits);
    CHECK(at::equal(composite, rounded));
    CHECK(at::equal(composite_scale, scale));
  }
  CHECK_THROWS_WITH(fake_quantize_weight(weight, 1), ContainsSubstring("bits must be in [2, 8], got 1"));
}

TEST_CASE("fake_quantize_weight: every instruction set and the composite give the same bits", "[quant][weight]") {
  torch::manual_seed(2);
  const at::Tensor weight = random_weight({24, 5, 3, 3});
  const auto [rounded, scale] = fake_quantize_weight(weight);
  force_cpu_capability(CpuCapability::kPortable);
  const auto [portable, portable_scale] = fake_quantize_weight(weight);
  force_cpu_capability(std::nullopt);
  const auto [composite, composite_scale] = fake_quantize_weight_composite(weight);
  CHECK(same_bits(rounded, portable));
  CHECK(same_bits(scale, portable_scale));
  CHECK(same_bits(rounded, composite));
  CHECK(same_bits(scale, composite_scale));
}

TEST_CASE("fake_quantize_weight: keeps channels_last and reads any stride", "[quant][weight]") {
  torch::manual_seed(3);
  const at::Tensor weight = random_weight({8, 6, 3, 3});
  const at::Tensor expected = std::get<0>(fake_quantize_weight(weight));
  const at::Tensor last = std::get<0>(fake_quantize_weight(weight.contiguous(at::MemoryFormat::ChannelsLast)));
  CHECK(last.is_contiguous(at::MemoryFormat::ChannelsLast));
  CHECK(at::equal(last, expected));
  const at::Tensor strided = weight.permute({1, 0, 2, 3}).contiguous().permute({1, 0, 2, 3});
  CHECK(at::equal(std::get<0>(fake_quantize_weight(strided)), expected));
}

TEST_CASE("fake_quantize_weight: the gradient passes whole, none through the scale", "[quant][weight]") {
  torch::manual_seed(4);
  const at::Tensor weight = at::randn({4, 3}).requires_grad_();
  const auto [rounded, scale] = fake_quantize_weight(weight);
  CHECK_FALSE(scale.requires_grad());
  const at::Tensor gradient = at::randn({4, 3});
  rounded.backward(gradient);
  CHECK(at::equal(weight.grad(), gradient));
}

TEST_CASE("fake_quantize_weight: NaN and Inf make their channel NaN and no other", "[quant][weight]") {
  for (const float bad : {NAN, INFINITY}) {
    for (const int64_t place : {0, 12, 16}) {  // first, within a vector, tail
      const at::Tensor weight = at::ones({2, 17});
      weight[1][place] = bad;
      const auto [rounded, scale] = fake_quantize_weight(weight);
      CHECK(rounded[1][place].isnan().item<bool>());
      CHECK(at::equal(rounded[0], weight[0]));
    }
  }
}

TEST_CASE("fake_quantize_weight: empty weights and wrong ones", "[quant][weight]") {
  CHECK(std::get<0>(fake_quantize_weight(at::empty({0, 3}))).numel() == 0);
  CHECK(at::equal(std::get<1>(fake_quantize_weight(at::empty({2, 0}))), at::ones({2})));
  CHECK_THROWS_WITH(fake_quantize_weight(at::ones({3})), ContainsSubstring("got shape [3]"));
  CHECK_THROWS_WITH(fake_quantize_weight(at::ones({3, 2}, at::kDouble)), ContainsSubstring("got Double"));
}
