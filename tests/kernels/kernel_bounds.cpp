// SPDX-License-Identifier: BSD-3-Clause
// Runs the quantisation kernels of one instruction set on arrays that end where they must, for tools/sanitize.sh: the
// sanitizers stop it at the first element too far and at undefined arithmetic. What the kernels compute is compared
// elsewhere (kernel_bits.cpp); here only elements outside the span asked for are looked at.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <type_traits>

#include "core/philox.h"
#include "quant/binary_fake_quantize_kernel.h"
#include "quant/fake_quantize_kernel.h"
#include "quant/fake_quantize_weight_kernel.h"
#include "quant/float_fake_quantize_kernel.h"
#include "quant/learned_fake_quantize_kernel.h"
#include "quant/level_fake_quantize_kernel.h"
#include "quant/observe_kernel.h"

namespace kernels = torchslim::TORCHSLIM_KERNELS;  // DEFAULT or AVX2
namespace quant = torchslim::quant;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Around every width that a kernel treats at once: lanes, blocks, groups of 32 and tiles of 1,024.
constexpr int64_t kSizes[] = {0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 96, 127, 129, 1023, 1057};
int64_t calls = 0;

// `size` elements after `offset` others: the last ends the allocation, and for offset 0 the first begins it.
template <typename T>
class Exact {
 public:
  Exact(int64_t size, int64_t offset = 0) : all_(new T[offset + size]()), offset_(offset), size_(size) {}
  T* data() const { return all_.get() + offset_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data()[i]; }
  void fill(T value) const { std::fill(data(), data() + size_, value); }

 private:
  std::unique_ptr<T[]> all_;
  int64_t offset_, size_;
};

// Returns numbers that are special from every third on, at other places for other seeds.
template <typename T>
Exact<T> numbers(int64_t size, int64_t offset, int64_t seed) {
  const double wide = std::is_same_v<T, double> ? 1e300 : 3e38;
  const double specials[] = {NAN,  kInfinity, -kInfinity, 0.0,  -0.0,    1e-40, -1e-40,
                             wide, -wide,     0.5,        -2.5, 65504.0, 1e9};
  Exact<T> values(size, offset);
  for (int64_t i = 0; i < size; ++i) {
    const bool special = (i + seed) % 3 == 0;
    values[i] = static_cast<T>(static_cast<float>(i * 37 % 101) / 8 - 6);
    if (special) {
      values[i] = static_cast<T>(specials[(i / 3 + seed) % std::size(specials)]);
    }
  }
  return values;
}

Exact<uint8_t> bits_of(int64_t size) { return Exact<uint8_t>((size + 7) / 8); }

// Calls run(x, y, cut, begin, end, stream) for spans of all sizes, places in memory, with and without bits, into another
// array and into x itself; `step`: what begin must be a multiple of.
template <typename T, typename Run>
void for_spans(int64_t step, const Run& run) {
  for (const int64_t size : kSizes) {
    for (const int64_t begin : {int64_t{0}, step}) {
      for (const int64_t offset : {0, 1, 3}) {
        for (const bool with_cut : {false, true}) {
          const auto end = begin + size;
          const auto x = numbers<T>(end, offset, size + begin);
          const Exact<T> y(end, offset);
          y.fill(T(42));
          const auto cut = bits_of(end);
          uint8_t* to_bits = with_cut ? cut.data() : nullptr;
          run(x.data(), y.data(), to_bits, begin, end, true);
          run(x.data(), y.data(), to_bits, begin, end, false);
          run(x.data(), x.data(), to_bits, begin, end, false);
          calls += 3;
          if (std::any_of(y.data(), y.data() + begin, [](T value) { return value != T(42); }) ||
              std::any_of(cut.data(), cut.data() + begin / 8, [](uint8_t byte) { return byte != 0; })) {
            std::fprintf(stderr, "a kernel wrote before its span of %d elements\n", static_cast<int>(size));
            std::exit(1);
          }
        }
      }
    }
  }
}

constexpr float kScales[] = {0.03f, 1.2e-38f, 8e37f, 1.0f};

// Grids of `channels` channels in a tensor that lies as (outer, channels, inner). A group of group-wise quantisation is a
// channel to the kernels.
struct Grids {
  Exact<float> inverse_scale, scale, low, high;
  quant::ChannelGrids grids;

  Grids(int64_t channels, int64_t inner, float pass_above = -kInfinity, float pass_below = kInfinity)
      : inverse_scale(channels), scale(channels), low(channels), high(channels) {
    for (int64_t c = 0; c < channels; ++c) {
      scale[c] = kScales[c % std::size(kScales)];
      inverse_scale[c] = 1.0f / scale[c];
    }
    low.fill(-128);
    high.fill(127);
    grids = {inverse_scale.data(), scale.data(), low.data(),   high.data(), channels, inner,
             pass_above,           pass_below,   channels == 1};
  }
};

template <typename T>
void fake_quantize() {
  const Grids layouts[] = {{1, 4096}, {1, 4096, 0.0f, 6.0f}, {7, 49}, {200, 8}, {33, 1}, {3, 1}, {2000, 1}};
  for (const auto& layout : layouts) {
    for_spans<T>(32, [&](const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, bool stream) {
      kernels::fake_quantize_span(x, y, cut, begin, end, layout.grids, stream);
    });
    for_spans<T>(32, [&](const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, bool stream) {
      kernels::fake_quantize_stochastic_span(x, y, cut, begin, end, layout.grids, ~uint64_t{0}, stream);
    });
  }
  for_spans<T>(8, [&](const T* dy, T* dx, uint8_t* cut, int64_t begin, int64_t end, bool stream) {
    if (cut != nullptr) {
      kernels::cut_gradient_span(dy, cut, dx, begin, end, stream);
    }
  });
}

template <typename T>
void learned_gradient() {
  const Grids layouts[] = {{1, 4096}, {7, 49}, {200, 8}, {33, 1}, {3, 1}, {2000, 1}};
  for (const auto& layout : layouts) {
    const int64_t channels = layout.grids.channels;
    for (const int64_t size : kSizes) {
      for (const int64_t offset : {0, 1, 3}) {
        const auto x = numbers<T>(size, offset, 1);
        const auto dy = numbers<T>(size, offset, 2);
        const Exact<T> dx(size, offset);
        for (const int wanted : {0, 1, 2, 3}) {
          for (const bool clip : {false, true}) {
            const Exact<double> scale(channels), outside(channels);
            const quant::GradientSums sums{wanted & 1 ? scale.data() : nullptr, wanted & 2 ? outside.data() : nullptr,
                                           0};
            kernels::learned_gradient_span(dy.data(), x.data(), clip || wanted == 0 ? dx.data() : nullptr, 0, size,
                                           layout.grids, clip, sums, wanted == 3);
            ++calls;
          }
        }
      }
    }
  }
}

// As many scales as `count` rows of `run` elements have, or one for each of `run` neighbours.
struct RealScales {
  Exact<float> inverse_scale, scale;
  quant::Scales scales;

  RealScales(int64_t count, int64_t run, int64_t repeat, bool neighbours)
      : inverse_scale(neighbours ? count * run : count), scale(inverse_scale.size()) {
    for (int64_t c = 0; c < scale.size(); ++c) {
      scale[c] = kScales[c % std::size(kScales)];
      inverse_scale[c] = 1.0f / scale[c];
    }
    scales = {inverse_scale.data(), scale.data(), run, repeat, count, neighbours};
  }
};

// A tree of 2^depth levels: node i of the stage that begins at `first` divides what is left in its middle.
struct Tree {
  Exact<float> thresholds, levels;
  Exact<double> wide;
  quant::LevelTree tree;

  explicit Tree(int depth) : thresholds(int64_t{1} << depth), levels(thresholds.size()), wide(thresholds.size()) {
    const int64_t size = levels.size();
    for (int64_t i = 0; i < size; ++i) {
      levels[i] = 4.0f * static_cast<float>(i) / static_cast<float>(size) - 2.0f;
    }
    for (int64_t first = 1, range = size; first < size; first *= 2, range /= 2) {
      for (int64_t i = 0; i < first; ++i) {
        const int64_t upper = i * range + range / 2;
        thresholds[first + i] = upper > size - 3 ? kInfinity : (levels[upper - 1] + levels[upper]) / 2;
      }
    }
    std::copy(thresholds.data(), thresholds.data() + size, wide.data());
    tree = {thresholds.data(), wide.data(), levels.data(), depth, levels[0], levels[size - 1]};
  }
};

template <typename T>
void real_levels() {
  const RealScales layouts[] = {
      {1, 4096, 1, false}, {7, 49, 1, false}, {5, 16, 3, false}, {1, 33, 1, true}, {3, 17, 2, true}};
  const Tree trees[] = {Tree(4), Tree(5), Tree(8)};
  const quant::FloatGrid grids[] = {{20, 0, 0.015625f, 16384.0f, 464.0f, 448.0f},
                                    {22, 0, 1.0f, 4194304.0f, 6.9999995f, 6.0f},
                                    {23, 1, 1.0f, 8388608.0f, 6.0f, kInfinity},
                                    {1, 0, 1.1754944e-38f, 1.1754944e-38f, 3.4028233e38f, NAN}};
  for (const auto& layout : layouts) {
    for (const auto& tree : trees) {
      for_spans<T>(8, [&](const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, bool stream) {
        kernels::level_span(x, y, cut, begin, end, layout.scales, tree.tree, stream);
      });
    }
    for (const auto& grid : grids) {
      for_spans<T>(8, [&](const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, bool stream) {
        kernels::float_span(x, y, cut, begin, end, layout.scales, grid, stream);
      });
    }
    for_spans<T>(8, [&](const T* x, T* y, uint8_t* cut, int64_t begin, int64_t end, bool stream) {
      kernels::sign_span(x, y, cut, begin, end, layout.scales, stream);
    });
  }
}

template <typename T>
void block_scales() {
  for (const int64_t block : {1, 16, 31, 32, 33}) {
    for (const int64_t inner : {1, 2, 7, 16, 63, 65, 129}) {
      for (const int64_t units : {0, 1, 3}) {
        for (const int exponent : {-126, 0, 8, 127}) {
          const auto x = numbers<T>(units * block * inner, units % 2, block);
          const Exact<float> scale(units * inner), inverse_scale(units * inner);
          kernels::block_scales(x.data(), 0, units, block, inner, exponent, scale.data(), inverse_scale.data());
          ++calls;
        }
      }
    }
  }
}

template <typename T>
void sums_and_ranges() {
  for (const int64_t size : kSizes) {
    for (const int64_t offset : {0, 1, 3}) {
      const auto x = numbers<T>(size, offset, size);
      const Exact<double> sum(1), count(1);
      kernels::magnitude_sum(x.data(), size, 0.5f, sum.data(), count.data());
      const Exact<float> low(1), high(1);
      kernels::finite_range_span(x.data(), size, low.data(), high.data());
      if (size > 0) {
        kernels::range_span(x.data(), size, low.data(), high.data());
      }
      const quant::BinSpan spans[] = {
          {64.0f, -512.0f, 1024}, {std::ldexp(1.0f, -128), -1.0f, 2}, {std::ldexp(1.0f, 127), 16777216.0f, 1}};
      for (const auto& span : spans) {
        for (const int ways : {1, quant::kCountWays}) {
          const Exact<uint32_t> counts(ways * (span.bins + 1));
          kernels::count_bins_span(x.data(), size, span, counts.data(), ways);
        }
      }
      calls += 9;
    }
  }
}

template <typename T>
void columns() {
  for (const int64_t width : {1, 7, 8, 17, 31, 32, 33, 70}) {
    for (const int64_t rows : {0, 1, 3}) {
      for (const int64_t gap : {0, 5}) {
        // Of the last row the first `width` elements alone are there.
        const auto x = numbers<T>(rows == 0 ? 0 : (rows - 1) * (width + gap) + width, 1, width);
        const Exact<double> sum(width), count(width);
        const Exact<float> above(width), low(width), high(width);
        kernels::magnitude_sum_columns(x.data(), rows, width + gap, width, above.data(), sum.data(), count.data());
        if (gap == 0) {
          kernels::column_range_span(x.data(), rows, width, low.data(), high.data());
        }
        ++calls;
      }
    }
  }
}

void weight() {
  for (const int64_t channels : {0, 1, 5}) {
    for (const int64_t size : {0, 1, 7, 8, 9, 31, 65}) {
      for (const int64_t offset : {0, 1}) {
        const auto w = numbers<float>(channels * size, offset, size);
        const Exact<float> y(channels * size, offset), scale(channels);
        kernels::fake_quantize_weight_f32(w.data(), y.data(), scale.data(), channels, size, 127.0f);
        ++calls;
      }
    }
  }
}

template <typename T>
void kernels_of() {
  fake_quantize<T>();
  learned_gradient<T>();
  real_levels<T>();
  block_scales<T>();
  sums_and_ranges<T>();
  columns<T>();
}

}  // namespace

int main() {
  kernels_of<float>();
  kernels_of<double>();
  kernels_of<c10::BFloat16>();
  kernels_of<c10::Half>();
  weight();
  std::printf("%d calls of kernels kept to their arrays\n", static_cast<int>(calls));
}
