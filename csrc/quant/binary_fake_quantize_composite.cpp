// SPDX-License-Identifier: BSD-3-Clause
// The binary and ternary fake-quantise ops in terms of ATen, for devices without a kernel of ours.
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "quant/binary_fake_quantize.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {

// Returns `factor` times the mean of the magnitudes that are not at most `above`, of each channel, as float32.
at::Tensor mean_above(const at::Tensor& size, const at::Tensor& above, at::IntArrayRef dims, double factor) {
  const auto in = size.le(above).logical_not_();
  const auto count = in.sum(dims, true, at::kDouble);
  const auto sum = at::where(in, size, at::zeros_like(size)).sum(dims, true);
  return at::where(count.eq(0), at::zeros_like(sum), sum.div(count).mul_(factor)).to(at::kFloat);
}

}  // namespace

Quantized sign_composite(const at::Tensor& self, std::optional<int64_t> axis, bool ternary, bool with_cut) {
  const auto channel_axis = check_sign(self, axis, ternary);
  if (self.numel() == 0) {
    return like_input(self, with_cut);
  }
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < self.dim(); ++dim) {
    if (dim != channel_axis) {
      dims.push_back(dim);
    }
  }
  // A channel of one element is summed over a dimension of its own.
  const bool reduces = !dims.empty() || self.dim() == 0;
  if (!reduces) {
    dims.push_back(-1);
  }
  const auto x = self.to(self.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const auto size = reduces ? x.to(at::kDouble).abs() : x.to(at::kDouble).abs().unsqueeze(-1);
  auto threshold = at::ones_like(size).neg_();
  if (ternary) {
    threshold = mean_above(size, threshold, dims, kTernaryThreshold).to(at::kDouble);
  }
  const auto scale = mean_above(size, threshold, dims, 1.0).to(x.scalar_type());
  const auto above = size.gt(threshold);
  const auto sign = at::where(x.lt(0), at::ones_like(x).neg_(), at::ones_like(x));
  const auto value = at::where(reduces ? above : above.squeeze(-1), sign, at::zeros_like(x));
  const auto result = at::where(x.isnan(), x, value).mul(reduces ? scale : scale.squeeze(-1));
  Quantized quantized{at::empty_like(self).copy_(result), {}};
  if (with_cut) {
    const auto cut = x.abs().le(1).logical_not_();
    quantized.cut = pack_bits(at::empty_like(self, self.options().dtype(at::kBool)).copy_(cut));
  }
  return quantized;
}

}  // namespace torchslim::quant::detail
