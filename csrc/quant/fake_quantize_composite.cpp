// SPDX-License-Identifier: BSD-3-Clause
// The fake-quantise ops in terms of ATen, for devices without a kernel of ours: the same bits, more passes.
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/full.h>

#include "core/philox.h"
#include "quant/fake_quantize.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {

// Reading values from another device would wait for it at every call: they are checked where they are on the CPU.
void check_values(const char* op, const Qparams& qparams) {
  if (!qparams.scale_tensor.is_cpu() || !qparams.zero_point_tensor.is_cpu()) {
    return;
  }
  const auto scale = qparams.scale_tensor.to(at::kFloat).flatten();
  const auto zero_point = qparams.zero_point_tensor.to(at::kDouble).flatten();
  for (int64_t c = 0; c < scale.numel(); ++c) {
    const auto where = qparams.axis ? " in channel " + std::to_string(c) : std::string();
    check_scale(op, scale[c].item<float>(), where);
    check_zero_point(op, zero_point[c].item<double>(), qparams.quant_min, qparams.quant_max, where);
  }
}

struct Limits {
  at::Tensor inverse_scale, scale, low, high;
};

// The grid as tensors that broadcast against `self`.
Limits limits_for(const at::Tensor& self, const Qparams& qparams, std::optional<int64_t> axis) {
  const auto type = self.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = self.options().dtype(at::kFloat);
  auto scale = qparams.scale_tensor.defined() ? qparams.scale_tensor.to(options) : at::full({}, qparams.scale, options);
  auto zero_point = qparams.scale_tensor.defined() ? qparams.zero_point_tensor.to(options)
                                                   : at::full({}, qparams.zero_point, options);
  std::vector<int64_t> shape(axis ? self.dim() : 0, 1);
  if (axis) {
    shape[*axis] = -1;
  }
  scale = scale.reshape(shape);
  zero_point = zero_point.reshape(shape);
  return {scale.reciprocal().to(type), scale.to(type), zero_point.neg().add_(qparams.quant_min).to(type),
          zero_point.neg().add_(qparams.quant_max).to(type)};
}

at::Tensor unpack(const at::Tensor& bits, int64_t n) {
  const auto place = at::arange(8, bits.options());
  return at::bitwise_and(at::bitwise_right_shift(bits.unsqueeze(1), place), 1).flatten().slice(0, 0, n);
}

// Numbers 0 to n - 1 of the sequence of `seed`, those that the kernels use.
at::Tensor uniform_numbers(uint64_t seed, int64_t n) {
  auto numbers = at::empty({(n + core::kPhiloxGroup - 1) / core::kPhiloxGroup * core::kPhiloxGroup}, at::kFloat);
  float* to = numbers.mutable_data_ptr<float>();
  for (int64_t i = 0; i < numbers.numel(); i += core::kPhiloxGroup) {
    core::philox_uniform(seed, i / core::kPhiloxGroup, to + i);
  }
  return numbers.slice(0, 0, n);
}

// Rounds values that are counted in steps, dense ones.
at::Tensor steps_of(at::Tensor value, const Qparams& qparams) {
  if (!qparams.seed) {
    return value.round_().add_(0.0);
  }
  const auto uniform = uniform_numbers(*qparams.seed, value.numel()).to(value.device());
  const auto whole = value.floor();
  const auto up = uniform.as_strided(value.sizes(), value.strides()).lt(value.sub(whole));
  return whole.add(up).add_(0.0);
}

}  // namespace

Quantized forward_composite(const char* op, const at::Tensor& self, const Qparams& qparams, bool with_cut) {
  const auto axis = check_qparams(op, self, qparams);
  if (qparams.scale_tensor.defined()) {
    check_values(op, qparams);
  }
  const auto [inverse_scale, scale, low, high] = limits_for(self, qparams, axis);
  auto x = at::empty_like(self, self.options().dtype(scale.scalar_type())).copy_(self);
  auto clamped = x;
  if (qparams.clamp_min) {
    clamped = clamped.clamp_min(static_cast<float>(*qparams.clamp_min));
  }
  if (qparams.clamp_max) {
    clamped = clamped.clamp_max(static_cast<float>(*qparams.clamp_max));
  }
  const auto steps = steps_of(clamped.mul(inverse_scale), qparams);
  auto values = steps.clamp(low, high).mul_(scale);
  if (!axis) {
    values = values.to(at::kFloat);  // for float64 too, as ATen does without channels
  }
  Quantized result{at::empty_like(self).copy_(values), {}};
  if (with_cut) {
    auto passes = steps.ge(low).logical_and_(steps.le(high));
    if (qparams.clamp_min) {
      passes.logical_and_(x.gt(static_cast<float>(*qparams.clamp_min)));
    }
    if (qparams.clamp_max) {
      passes.logical_and_(x.lt(static_cast<float>(*qparams.clamp_max)));
    }
    result.cut = pack_bits(at::empty_like(self, self.options().dtype(at::kBool)).copy_(passes.logical_not_()));
  }
  return result;
}

at::Tensor backward_composite(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride) {
  auto result = at::empty_strided(grad.sizes(), C10_AS_INTARRAYREF_SLOW(stride), grad.options()).copy_(grad);
  result.as_strided({result.numel()}, {1}).mul_(unpack(cut, grad.numel()).bitwise_xor_(1));
  return result;
}

}  // namespace torchslim::quant::detail
