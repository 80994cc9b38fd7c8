// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/copysign.h>
#include <torchslim/quant/requantize.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace torchslim::quant {

at::Tensor steps_of(const at::Tensor& x, const at::Tensor& scale) {
  const at::NoGradGuard no_grad;
  return (x * scale.reciprocal()).round_();
}

at::Tensor requantize_sums(const at::Tensor& sums, const at::Tensor& step, const at::Tensor& output_scale,
                           int64_t axis) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> per_channel(sums.dim(), 1);
  per_channel[axis] = step.numel();
  return sums.mul_((step * output_scale.reciprocal()).view(per_channel)).round_().mul_(output_scale);
}

at::Tensor requantized_add(const at::Tensor& a, const at::Tensor& a_scale, const at::Tensor& b,
                           const at::Tensor& b_scale, const at::Tensor& output_scale) {
  const at::NoGradGuard no_grad;
  const auto out = output_scale.item<float>();
  const float left = a_scale.item<float>() / out;
  const float right = b_scale.item<float>() / out;
  const int shift = 21 - std::ilogb(std::max(left, right));
  const auto fixed = [shift](float ratio) { return std::ldexp(std::rint(std::ldexp(double{ratio}, shift)), -shift); };
  // Exact in double: multipliers of 22 bits times steps of 9.
  const at::Tensor sum =
      steps_of(a, a_scale).to(at::kDouble).mul_(fixed(left)) + steps_of(b, b_scale).to(at::kDouble).mul_(fixed(right));
  return (sum + at::copysign(sum.new_full({}, 0.5), sum)).trunc_().to(at::kFloat).mul_(output_scale);
}

at::Tensor requantized_mul(const at::Tensor& a, const at::Tensor& a_scale, const at::Tensor& b,
                           const at::Tensor& b_scale, const at::Tensor& output_scale) {
  const at::NoGradGuard no_grad;
  const at::Tensor multiplier = a_scale * b_scale / output_scale;
  return (steps_of(a, a_scale) * steps_of(b, b_scale)).mul_(multiplier).round_().mul_(output_scale);
}

}  // namespace torchslim::quant
