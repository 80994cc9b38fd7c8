// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>
#include <torchslim/quant/qparams.h>

#include <cmath>

#include "quant/observer.h"

namespace torchslim::quant {
namespace {

constexpr const char* kUpdateOp = "torchslim::update_qparams";

void check_update(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& scale,
                  const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  detail::check_grid(kUpdateOp, quant_min, quant_max);
  const auto shape = min_val.sym_sizes();
  const auto device = min_val.device();
  detail::check_state(kUpdateOp, "min_val", min_val, at::kFloat, shape, device);
  detail::check_state(kUpdateOp, "max_val", max_val, at::kFloat, shape, device);
  detail::check_state(kUpdateOp, "scale", scale, at::kFloat, shape, device);
  detail::check_state(kUpdateOp, "zero_point", zero_point, at::kInt, shape, device);
}

GridNumbers grid_of_range(detail::Range range, int64_t quant_min, int64_t quant_max, bool symmetric, bool per_channel) {
  TORCH_CHECK_VALUE(std::isfinite(range.min) && std::isfinite(range.max) && range.min <= range.max, kUpdateOp,
                    ": min_val and max_val must be finite and in order where something was seen, got ", range.min,
                    " and ", range.max, "; reset the observer");
  return per_channel ? detail::channel_grid(range, quant_min, quant_max, symmetric)
                     : choose_qparams(range.min, range.max, quant_min, quant_max, symmetric);
}

// Nothing is written before every range has been checked.
void update_qparams_op(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& scale,
                       const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, bool symmetric,
                       bool per_channel) {
  check_update(min_val, max_val, scale, zero_point, quant_min, quant_max);
  const detail::RangeTable ranges(min_val, max_val);
  const auto scales = scale.detach().to(at::kCPU).clone(at::MemoryFormat::Contiguous);
  const auto zero_points = zero_point.detach().to(at::kCPU).clone(at::MemoryFormat::Contiguous);
  for (int64_t i = 0; i < ranges.size(); ++i) {
    const auto range = ranges.get(i);
    if (range.min == INFINITY && range.max == -INFINITY) {
      continue;  // nothing was seen
    }
    const auto grid = grid_of_range(range, quant_min, quant_max, symmetric, per_channel);
    scales.mutable_data_ptr<float>()[i] = grid.scale;
    zero_points.mutable_data_ptr<int32_t>()[i] = grid.zero_point;
  }
  scale.copy_(scales);
  zero_point.copy_(zero_points);
}

void update_qparams_meta(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& scale,
                         const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, bool, bool) {
  check_update(min_val, max_val, scale, zero_point, quant_min, quant_max);
}

void update_qparams_autograd(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& scale,
                             const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, bool symmetric,
                             bool per_channel) {
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    update_qparams(min_val, max_val, scale, zero_point, quant_min, quant_max, symmetric, per_channel);
  }
  torch::autograd::impl::bump_version(scale);
  torch::autograd::impl::bump_version(zero_point);
}

}  // namespace

void update_qparams(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& scale,
                    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, bool symmetric,
                    bool per_channel) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kUpdateOp, "").typed<decltype(update_qparams_op)>();
  op.call(min_val, max_val, scale, zero_point, quant_min, quant_max, symmetric, per_channel);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  m.def(
      "update_qparams(Tensor min_val, Tensor max_val, Tensor(a!) scale, Tensor(b!) zero_point, int quant_min, "
      "int quant_max, bool symmetric, bool per_channel) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { m.impl("update_qparams", TORCH_FN(update_qparams_op)); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { m.impl("update_qparams", TORCH_FN(update_qparams_meta)); }
TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("update_qparams", TORCH_FN(update_qparams_autograd)); }
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) { m.impl("update_qparams", torch::CppFunction::makeFallthrough()); }

}  // namespace torchslim::quant
