// SPDX-License-Identifier: BSD-3-Clause
// Runs the quantisation kernels of one instruction set on the same made-up numbers and prints a checksum of every result.
// Built for each instruction set and for AArch64 (tools/test_aarch64.sh): all must print the same lines. It needs no
// LibTorch to link with, so it runs under emulation.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <limits>
#include <type_traits>
#include <vector>

#include "core/crc32.h"
#include "core/philox.h"
#include "quant/binary_fake_quantize_kernel.h"
#include "quant/fake_quantize_kernel.h"
#include "quant/fake_quantize_weight_kernel.h"
#include "quant/float_fake_quantize_kernel.h"
#include "quant/learned_fake_quantize_kernel.h"
#include "quant/level_fake_quantize_kernel.h"
#include "quant/observe_kernel.h"

namespace kernels = torchslim::TORCHSLIM_KERNELS;  // DEFAULT or AVX2
using torchslim::quant::ChannelGrids;
using torchslim::quant::Scales;

namespace {

constexpr int64_t kSize = 32 * 1024 + 77;  // whole groups, whole vectors and single elements
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Numbers around zero, every tenth of them special.
template <typename T>
std::vector<T> made_up(uint64_t seed, bool special) {
  const float specials[] = {NAN, kInfinity, -kInfinity, 0.0f, -0.0f, 1e-40f, 3e38f, -3e38f, 0.5f, -2.5f};
  std::vector<T> values(kSize);
  float uniform[torchslim::core::kPhiloxGroup];
  for (int64_t i = 0; i < kSize; ++i) {
    if (i % torchslim::core::kPhiloxGroup == 0) {
      torchslim::core::philox_uniform(seed, i / torchslim::core::kPhiloxGroup, uniform);
    }
    const float value = 16 * uniform[i % torchslim::core::kPhiloxGroup] - 8;
    values[i] = static_cast<T>(special && i % 10 == 3 ? specials[i / 10 % 10] : value);
  }
  return values;
}

// Which bits a NaN has depends on the machine, and nobody reads them.
template <typename T>
uint32_t checksum(std::vector<T> values) {
  if constexpr (!std::is_integral_v<T>) {
    for (T& value : values) {
      if (value != value) {
        value = static_cast<T>(0.125f);
      }
    }
  }
  return torchslim::core::crc32(values.data(), values.size() * sizeof(T));
}

template <typename T>
void print(const char* kernel, const char* type, const std::vector<T>& values) {
  std::printf("%s %s %08" PRIx32 "\n", kernel, type, checksum(values));
}

// Grids of `channels` channels in a tensor that lies as (outer, channels, inner).
struct Grids {
  std::vector<float> inverse_scale, scale, low, high;
  ChannelGrids grids;

  Grids(int64_t channels, int64_t inner, float pass_above = -kInfinity, float pass_below = kInfinity) {
    for (int64_t c = 0; c < channels; ++c) {
      scale.push_back(0.03f + 0.001f * static_cast<float>(c));
      inverse_scale.push_back(1.0f / scale.back());
      low.push_back(static_cast<float>(-128 - c % 5));
      high.push_back(static_cast<float>(127 - c % 5));
    }
    grids = {inverse_scale.data(), scale.data(), low.data(),   high.data(), channels, inner,
             pass_above,           pass_below,   channels == 1};
  }
};

template <typename T>
void fake_quantize(const char* type) {
  const auto x = made_up<T>(1, true);
  const Grids layouts[] = {{1, kSize}, {1, kSize, 0.0f, 6.0f}, {7, 49}, {33, 1}};
  for (const auto& layout : layouts) {
    std::vector<T> y(kSize);
    std::vector<uint8_t> cut((kSize + 7) / 8);
    kernels::fake_quantize_span(x.data(), y.data(), cut.data(), 0, kSize, layout.grids, false);
    print("fake_quantize", type, y);
    print("fake_quantize cut", type, cut);
    std::vector<T> dx(kSize);
    kernels::cut_gradient_span(x.data(), cut.data(), dx.data(), 0, kSize, false);
    print("cut_gradient", type, dx);
    kernels::fake_quantize_stochastic_span(x.data(), y.data(), cut.data(), 0, kSize, layout.grids, uint64_t{9} << 33,
                                           false);
    print("fake_quantize_stochastic", type, y);
    print("fake_quantize_stochastic cut", type, cut);
  }
}

template <typename T>
void learned_gradient(const char* type) {
  const auto x = made_up<T>(4, false);
  const auto dy = made_up<T>(5, false);
  const Grids layouts[] = {{1, kSize}, {7, 49}, {33, 1}};
  for (const auto& layout : layouts) {
    for (const bool clip : {false, true}) {
      std::vector<T> dx(kSize);
      std::vector<double> scale(layout.grids.channels), outside(layout.grids.channels);
      kernels::learned_gradient_span(dy.data(), x.data(), dx.data(), 0, kSize, layout.grids, clip,
                                     {scale.data(), outside.data(), 0}, false);
      print("learned_gradient", type, dx);
      print("learned_gradient scale", type, scale);
      print("learned_gradient outside", type, outside);
    }
  }
}

template <typename T>
void range(const char* type) {
  const auto x = made_up<T>(2, false);
  std::vector<float> extremes(2);
  kernels::range_span(x.data(), kSize, &extremes[0], &extremes[1]);
  print("range", type, extremes);
}

// Scales of kernels without integer codes: one, one for each row of 49, or one for each of 33 neighbours.
struct RealScales {
  std::vector<float> inverse_scale, scale;
  Scales scales;

  RealScales(int64_t count, int64_t run, bool neighbours) {
    for (int64_t c = 0; c < count; ++c) {
      scale.push_back(0.3f + 0.1f * static_cast<float>(c));
      inverse_scale.push_back(1.0f / scale.back());
    }
    scales = {inverse_scale.data(), scale.data(), run, 1, neighbours ? 1 : count, neighbours};
  }
};

// A tree of 2^depth levels, -2 to 2: node i of the stage that begins at `first` divides what is left in its middle.
struct Tree {
  std::vector<float> thresholds, levels;
  std::vector<double> wide;
  torchslim::quant::LevelTree tree;

  explicit Tree(int depth) {
    const int64_t size = int64_t{1} << depth;
    for (int64_t i = 0; i < size; ++i) {
      levels.push_back(4.0f * static_cast<float>(i) / static_cast<float>(size) - 2.0f);
    }
    thresholds.resize(size);
    for (int64_t first = 1, range = size; first < size; first *= 2, range /= 2) {
      for (int64_t i = 0; i < first; ++i) {
        const int64_t upper = i * range + range / 2;
        thresholds[first + i] = (levels[upper - 1] + levels[upper]) / 2;
      }
    }
    wide.assign(thresholds.begin(), thresholds.end());
    tree = {thresholds.data(), wide.data(), levels.data(), depth, levels.front(), levels.back()};
  }
};

template <typename T>
void real_levels(const char* type) {
  const auto x = made_up<T>(4, true);
  std::vector<T> y(kSize);
  std::vector<uint8_t> cut((kSize + 7) / 8);
  const auto show = [&](const char* kernel) {
    print(kernel, type, y);
    print(kernel, type, cut);
  };
  const RealScales layouts[] = {{1, kSize, false}, {7, 49, false}, {33, 33, true}};
  const Tree trees[] = {Tree(4), Tree(7)};
  const torchslim::quant::FloatGrid e4m3{20, 0, 0.015625f, 16384.0f, 464.0f, 448.0f};
  const torchslim::quant::FloatGrid e2m1{22, 0, 1.0f, 4194304.0f, 6.9999995f, 6.0f};
  for (const auto& layout : layouts) {
    for (const auto& tree : trees) {
      kernels::level_span(x.data(), y.data(), cut.data(), 0, kSize, layout.scales, tree.tree, false);
      show("level");
    }
    for (const auto& grid : {e4m3, e2m1}) {
      kernels::float_span(x.data(), y.data(), cut.data(), 0, kSize, layout.scales, grid, false);
      show("float");
    }
    kernels::sign_span(x.data(), y.data(), cut.data(), 0, kSize, layout.scales, false);
    show("sign");
  }
}

template <typename T>
void real_sums(const char* type) {
  const auto x = made_up<T>(5, false);
  constexpr int64_t kBlock = 32, kBlocks = kSize / kBlock;
  std::vector<float> scale(kBlocks), inverse_scale(kBlocks);
  kernels::block_scales(x.data(), 0, kBlocks, kBlock, 1, 8, scale.data(), inverse_scale.data());
  print("block_scales", type, scale);
  print("block_scales", type, inverse_scale);
  kernels::block_scales(x.data(), 0, kBlocks / 8, kBlock, 8, 2, scale.data(), inverse_scale.data());
  print("block_scales of columns", type, scale);
  std::vector<double> sums(7), counts(7);
  const std::vector<float> above{-1.0f, 0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 5.0f};
  kernels::magnitude_sum(x.data(), kSize, 0.5f, &sums[0], &counts[0]);
  kernels::magnitude_sum_columns(x.data(), kSize / 7, 7, 7, above.data(), sums.data(), counts.data());
  print("magnitude_sum", type, sums);
  print("magnitude_sum", type, counts);
}

template <typename T>
void observe(const char* type) {
  const auto x = made_up<T>(4, true);
  std::vector<float> extremes(2);
  kernels::finite_range_span(x.data(), kSize, &extremes[0], &extremes[1]);
  print("finite_range", type, extremes);
  const torchslim::quant::BinSpan spans[] = {{64.0f, -512.0f, 1024}, {std::ldexp(1.0f, -128), -1.0f, 2}};
  for (const auto& span : spans) {
    for (const int ways : {1, torchslim::quant::kCountWays}) {
      std::vector<uint32_t> counts(ways * (span.bins + 1));
      kernels::count_bins_span(x.data(), kSize, span, counts.data(), ways);
      print("count_bins", type, counts);
    }
  }
}

template <typename T>
void columns(const char* type) {
  const auto x = made_up<T>(8, false);
  constexpr int64_t kWidth = 70;
  std::vector<float> low(kWidth, kInfinity), high(kWidth, -kInfinity);
  kernels::column_range_span(x.data(), kSize / kWidth, kWidth, low.data(), high.data());
  print("column_range low", type, low);
  print("column_range high", type, high);
}

template <typename T>
void kernels_of(const char* type) {
  real_levels<T>(type);
  real_sums<T>(type);
  fake_quantize<T>(type);
  learned_gradient<T>(type);
  range<T>(type);
  observe<T>(type);
  columns<T>(type);
}

void weight() {
  const auto w = made_up<float>(3, false);
  constexpr int64_t kRow = 9;
  std::vector<float> y(kSize / kRow * kRow), scale(kSize / kRow);
  kernels::fake_quantize_weight_f32(w.data(), y.data(), scale.data(), kSize / kRow, kRow, 127.0f);
  print("fake_quantize_weight", "float", y);
  print("fake_quantize_weight scale", "float", scale);
}

}  // namespace

int main() {
  kernels_of<float>("float");
  kernels_of<double>("double");
  kernels_of<c10::BFloat16>("bfloat16");
  kernels_of<c10::Half>("half");
  weight();
}
