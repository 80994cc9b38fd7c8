// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <vector>

#include "core/composite.h"
#include "quant/elementwise.h"
#include "quant/grid_table.h"
#include "quant/learned_fake_quantize.h"
#include "quant/learned_fake_quantize_kernel.h"

namespace torchslim::quant::detail {
namespace {

// How a tensor is divided for the sums of its channels: by its shape alone, whatever the number of threads.
class SumTable {
 public:
  SumTable(int64_t n, const ChannelGrids& grids, Wanted wanted)
      : n_(n), channels_(grids.channels), inner_(std::max<int64_t>(grids.inner, 1)), wanted_(wanted) {
    // Chunks so large that their slots are few beside their elements, even where neighbours are channels.
    const int64_t touched = std::min(channels_, kChunk / inner_ + 2);
    chunk_ = touched * 32 <= kChunk ? kChunk : (touched * 32 + kChunk - 1) / kChunk * kChunk;
    slots_ = std::min(channels_, chunk_ / inner_ + 2);
    chunks_ = (n_ + chunk_ - 1) / chunk_;
    for (int sum = 0; sum < 2; ++sum) {
      if (wanted[sum + 1]) {
        sums_[sum].resize(chunks_ * slots_);
      }
    }
  }

  // Calls work(begin, end, sums) for each chunk, on all threads.
  template <typename Work>
  void for_each(const Work& work) {
    at::parallel_for(0, chunks_, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const GradientSums sums{at_chunk(sums_[0], i), at_chunk(sums_[1], i), first_channel(i)};
        work(i * chunk_, std::min((i + 1) * chunk_, n_), sums);
      }
    });
  }

  // Returns the sums of the channels: chunk by chunk, in order.
  std::vector<double> scale_sums() const { return merged(sums_[0], wanted_[1]); }
  std::vector<double> outside_sums() const { return merged(sums_[1], wanted_[2]); }

 private:
  double* at_chunk(std::vector<double>& sums, int64_t chunk) const {
    return sums.empty() ? nullptr : sums.data() + chunk * slots_;
  }

  // The channel of slot 0: a chunk that holds every channel has a slot for each, another begins where it begins.
  int64_t first_channel(int64_t chunk) const { return slots_ == channels_ ? 0 : chunk * chunk_ / inner_ % channels_; }

  std::vector<double> merged(const std::vector<double>& sums, bool wanted) const {
    std::vector<double> totals(wanted ? channels_ : 0);
    for (int64_t i = 0; i < static_cast<int64_t>(sums.size()); ++i) {
      totals[(first_channel(i / slots_) + i % slots_) % channels_] += sums[i];
    }
    return totals;
  }

  int64_t n_, channels_, inner_, chunk_, slots_, chunks_;
  Wanted wanted_;
  std::vector<double> sums_[2];
};

at::Tensor as_gradient(const std::vector<double>& sums, const at::Tensor& like, bool wanted) {
  if (!wanted) {
    return at::empty({0}, like.options());
  }
  const auto result = at::empty(like.sizes(), like.options());
  AT_DISPATCH_ALL_TYPES_AND2(at::kBFloat16, at::kHalf, like.scalar_type(), "learned_fake_quantize", [&] {
    std::transform(sums.begin(), sums.end(), result.mutable_data_ptr<scalar_t>(),
                   [](double sum) { return static_cast<scalar_t>(sum); });
  });
  return result;
}

void fill_gradients(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx, const ChannelGrids& grids,
                    bool clip, SumTable& table) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "learned_fake_quantize", [&] {
    const scalar_t* slopes = dy.const_data_ptr<scalar_t>();
    const scalar_t* values = x.const_data_ptr<scalar_t>();
    scalar_t* to = dx.numel() == 0 ? nullptr : dx.mutable_data_ptr<scalar_t>();
    const bool stream = core::worth_streaming(dx.nbytes() / 2 * 3);  // three tensors are in the cache, not two
    table.for_each([&](int64_t begin, int64_t end, const GradientSums& sums) {
      TORCHSLIM_CALL_KERNEL(learned_gradient_span<scalar_t>, slopes, values, to, begin, end, grids, clip, sums, stream);
    });
  });
}

}  // namespace

at::Tensor learned_forward_cpu(const at::Tensor& self, const LearnedGrid& grid) {
  if (core::composite_on_cpu()) {
    return learned_forward_composite(self, grid);
  }
  return forward_cpu(kLearnedOp, self, as_qparams(self, grid), /*with_cut=*/false).value;
}

LearnedGradients learned_backward_cpu(const at::Tensor& grad, const at::Tensor& self, const LearnedGrid& grid,
                                      Wanted wanted) {
  if (core::composite_on_cpu()) {
    return learned_backward_composite(grad, self, grid, wanted);
  }
  check_learned_gradient(grad, self);
  const GridTable table(kLearnedOp, self, as_qparams(self, grid));
  const auto x = self.is_non_overlapping_and_dense() ? self : at::empty_like(self).copy_(self);
  const auto dx = wanted[0] ? large(at::empty_like(x)) : at::empty({0}, self.options());
  const auto grids = table.for_layout(x);
  SumTable sums(x.numel(), grids, wanted);
  if (x.numel() > 0) {
    const auto dy = in_layout_of(grad, wanted[0] ? dx : at::empty_like(x));
    fill_gradients(dy, x, dx, grids, grid.gradient == "clip", sums);
  }
  const double factor = grad_factor(self, grid);
  auto to_scale = sums.scale_sums();
  auto to_zero_point = sums.outside_sums();
  for (double& sum : to_scale) {
    sum *= factor;
  }
  for (size_t c = 0; c < to_zero_point.size(); ++c) {
    to_zero_point[c] *= -factor * grids.scale[c];
  }
  return {dx, as_gradient(to_scale, grid.scale, wanted[1]), as_gradient(to_zero_point, grid.zero_point, wanted[2])};
}

}  // namespace torchslim::quant::detail
