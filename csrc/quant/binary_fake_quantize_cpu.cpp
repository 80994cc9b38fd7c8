// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <vector>

#include "core/composite.h"
#include "quant/binary_fake_quantize.h"
#include "quant/binary_fake_quantize_kernel.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {

// The channels of a dense tensor that lies in memory as (outer, channels, inner), and their sums of magnitudes.
class ChannelSums {
 public:
  ChannelSums(const at::Tensor& x, std::optional<int64_t> axis)
      : channels_(axis ? x.size(*axis) : 1),
        inner_(channels_ > 1 ? x.stride(*axis) : x.numel() / channels_),
        outer_(x.numel() / (channels_ * inner_)),
        sum_(channels_),
        count_(channels_) {}

  // Sums the magnitudes that are above the limit of their channel. Each channel is summed in one order by one thread, a
  // single one in chunks, so that the bits are the same for any number of threads.
  template <typename T>
  void add(const T* x, const std::vector<float>& above) {
    std::fill(sum_.begin(), sum_.end(), 0.0);
    std::fill(count_.begin(), count_.end(), 0.0);
    if (channels_ == 1) {
      add_chunks(x, outer_ * inner_, above[0]);
    } else if (inner_ == 1) {
      constexpr int64_t kColumns = 64;  // channels that a thread takes at a time
      at::parallel_for(0, (channels_ + kColumns - 1) / kColumns, 1, [&](int64_t first, int64_t last) {
        const int64_t begin = first * kColumns;
        const int64_t width = std::min(last * kColumns, channels_) - begin;
        TORCHSLIM_CALL_KERNEL(magnitude_sum_columns, x + begin, outer_, channels_, width, above.data() + begin,
                              sum_.data() + begin, count_.data() + begin);
      });
    } else {
      const int64_t grain = std::max<int64_t>(1, kChunk / (outer_ * inner_));
      at::parallel_for(0, channels_, grain, [&](int64_t first, int64_t last) {
        for (int64_t c = first; c < last; ++c) {
          for (int64_t o = 0; o < outer_; ++o) {
            TORCHSLIM_CALL_KERNEL(magnitude_sum, x + (o * channels_ + c) * inner_, inner_, above[c], &sum_[c],
                                  &count_[c]);
          }
        }
      });
    }
  }

  // Returns `factor` times the mean of what was summed, of each channel; 0 where that was nothing.
  std::vector<float> means(double factor) const {
    std::vector<float> result(channels_);
    for (int64_t c = 0; c < channels_; ++c) {
      result[c] = count_[c] == 0 ? 0.0f : static_cast<float>(factor * (sum_[c] / count_[c]));
    }
    return result;
  }

  int64_t channels() const { return channels_; }

  Scales scales(const std::vector<float>& threshold, const std::vector<float>& scale) const {
    const bool neighbours = inner_ == 1 && channels_ > 1;
    return {.inverse_scale = threshold.data(),
            .scale = scale.data(),
            .run = neighbours ? channels_ : inner_,
            .repeat = 1,
            .groups = neighbours ? 1 : channels_,
            .neighbours = neighbours};
  }

 private:
  template <typename T>
  void add_chunks(const T* x, int64_t n, float above) {
    const int64_t chunks = (n + kChunk - 1) / kChunk;
    std::vector<double> sums(chunks), counts(chunks);
    at::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
      for (int64_t chunk = first; chunk < last; ++chunk) {
        const int64_t begin = chunk * kChunk;
        TORCHSLIM_CALL_KERNEL(magnitude_sum, x + begin, std::min(kChunk, n - begin), above, &sums[chunk],
                              &counts[chunk]);
      }
    });
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      sum_[0] += sums[chunk];
      count_[0] += counts[chunk];
    }
  }

  int64_t channels_, inner_, outer_;
  std::vector<double> sum_, count_;
};

// The threshold and the scale of each channel.
struct SignNumbers {
  std::vector<float> threshold, scale;
};

template <typename T>
SignNumbers sign_numbers(const T* x, ChannelSums& sums, bool ternary) {
  SignNumbers numbers{std::vector<float>(sums.channels(), -1.0f), {}};
  sums.add(x, numbers.threshold);
  if (ternary) {
    numbers.threshold = sums.means(kTernaryThreshold);
    sums.add(x, numbers.threshold);
  }
  numbers.scale = sums.means(1.0);
  return numbers;
}

}  // namespace

Quantized sign_cpu(const at::Tensor& self, std::optional<int64_t> axis, bool ternary, bool with_cut) {
  if (core::composite_on_cpu()) {
    return sign_composite(self, axis, ternary, with_cut);
  }
  const auto channel_axis = check_sign(self, axis, ternary);
  SignNumbers numbers;
  const auto source = self.is_non_overlapping_and_dense() ? self : at::empty_like(self).copy_(self);
  return quantize_chunks(source, with_cut, [&](const at::Tensor& value) {
    ChannelSums sums(value, channel_axis);
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, self.scalar_type(), "sign_numbers",
                                    [&] { numbers = sign_numbers(source.const_data_ptr<scalar_t>(), sums, ternary); });
    return [scales = sums.scales(numbers.threshold, numbers.scale)](const auto* x, auto* y, uint8_t* cut, int64_t begin,
                                                                    int64_t end, bool stream) {
      TORCHSLIM_CALL_KERNEL(sign_span, x, y, cut, begin, end, scales, stream);
    };
  });
}

}  // namespace torchslim::quant::detail
