// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/SmallVector.h>

#include <cmath>
#include <limits>
#include <type_traits>

#include "core/composite.h"
#include "quant/level_fake_quantize.h"
#include "quant/level_fake_quantize_kernel.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {

// Returns the largest A that still belongs below the middle of levels[index - 1] and levels[index]: v > it is index or
// higher. The middle itself belongs to the even index.
template <typename A>
A threshold_below(const float* levels, int64_t index) {
  const double middle = (static_cast<double>(levels[index - 1]) + static_cast<double>(levels[index])) / 2;
  const bool middle_goes_up = index % 2 == 0;
  const A nearest = static_cast<A>(middle);
  const bool too_high = middle_goes_up ? nearest >= middle : nearest > middle;
  return too_high ? std::nextafter(nearest, -std::numeric_limits<A>::infinity()) : nearest;
}

// The levels of a call as kernels want them.
class LevelTable {
 public:
  LevelTable(const at::Tensor& self, const at::Tensor& levels) {
    check_levels(self, levels);
    const auto numbers = levels.detach().to(at::kFloat).contiguous();
    check_level_values(numbers);
    const float* from = numbers.const_data_ptr<float>();
    const int64_t n = numbers.numel();
    while ((int64_t{1} << depth_) < n) {
      ++depth_;
    }
    levels_.assign(from, from + n);
    levels_.resize(int64_t{1} << depth_, from[n - 1]);
    if (self.scalar_type() == at::kDouble) {
      fill(wide_thresholds_, n);
    } else {
      fill(thresholds_, n);
    }
    lowest_ = from[0];
    highest_ = from[n - 1];
  }

  LevelTree tree() const {
    return {.thresholds = thresholds_.data(),
            .wide_thresholds = wide_thresholds_.data(),
            .levels = levels_.data(),
            .depth = depth_,
            .lowest = lowest_,
            .highest = highest_};
  }

 private:
  // Node i of the stage that begins at 2^k divides a range of 2^(depth − k) levels in its middle.
  template <typename Numbers>
  void fill(Numbers& thresholds, int64_t n) const {
    using A = typename Numbers::value_type;
    const int64_t size = int64_t{1} << depth_;
    thresholds.resize(size, std::numeric_limits<A>::infinity());
    for (int64_t first = 1, range = size; first < size; first *= 2, range /= 2) {
      for (int64_t i = 0; i < first && i * range + range / 2 < n; ++i) {
        thresholds[first + i] = threshold_below<A>(levels_.data(), i * range + range / 2);
      }
    }
  }

  int depth_ = 4;
  float lowest_, highest_;
  c10::SmallVector<float, 16> levels_, thresholds_;
  c10::SmallVector<double, 0> wide_thresholds_;
};

}  // namespace

Quantized level_cpu(const at::Tensor& self, const LevelArguments& arguments, bool with_cut) {
  if (core::composite_on_cpu()) {
    return level_composite(self, arguments, with_cut);
  }
  const LevelTable table(self, arguments.levels);
  const ScaleTable scale_table(kLevelOp, self, arguments.scale, arguments.axis);
  const LevelTree tree = table.tree();
  return quantize_chunks(self, with_cut, [&](const at::Tensor& value) {
    return [&tree, scales = scale_table.for_layout(value)](const auto* x, auto* y, uint8_t* cut, int64_t begin,
                                                           int64_t end, bool stream) {
      TORCHSLIM_CALL_KERNEL(level_span, x, y, cut, begin, end, scales, tree, stream);
    };
  });
}

}  // namespace torchslim::quant::detail
