// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>
#include <torchslim/quant/observe_range.h>

#include "quant/fake_quantize.h"
#include "quant/observed_rows.h"
#include "quant/observer.h"

namespace torchslim::quant {
namespace {

constexpr const char* kRangeOp = "torchslim::observe_range";

detail::Granularity check_observed_range(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                                         std::optional<int64_t> axis, std::optional<int64_t> group_size,
                                         double averaging_constant, bool keep_extremes) {
  const detail::Granularity how{axis, group_size};
  detail::check_input(kRangeOp, self);
  const auto shape = detail::check_granularity(kRangeOp, self, how);
  detail::check_averaging_constant(kRangeOp, averaging_constant, keep_extremes);
  detail::check_state(kRangeOp, "min_val", min_val, at::kFloat, shape, self.device());
  detail::check_state(kRangeOp, "max_val", max_val, at::kFloat, shape, self.device());
  return how;
}

// Nothing is written before everything has been checked and computed.
void observe_range_op(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                      std::optional<int64_t> axis, std::optional<int64_t> group_size, double averaging_constant,
                      bool keep_extremes, bool skip_non_finite) {
  const auto how = check_observed_range(self, min_val, max_val, axis, group_size, averaging_constant, keep_extremes);
  if (self.numel() == 0) {
    return;
  }
  const auto seen = detail::observed_ranges(kRangeOp, self, detail::rows_of(self, how), skip_non_finite);
  const detail::ObserverRule rule{averaging_constant, keep_extremes, 0, 1, false};
  detail::RangeTable table(min_val, max_val);
  for (int64_t row = 0; row < table.size(); ++row) {
    if (seen[row].min <= seen[row].max) {  // else all was skipped
      table.set(row, detail::moved_range(table.get(row), seen[row], rule));
    }
  }
  table.write_to(min_val, max_val);
}

void observe_range_meta(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                        std::optional<int64_t> axis, std::optional<int64_t> group_size, double averaging_constant,
                        bool keep_extremes, bool skip_non_finite) {
  check_observed_range(self, min_val, max_val, axis, group_size, averaging_constant, keep_extremes);
}

void observe_range_autograd(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                            std::optional<int64_t> axis, std::optional<int64_t> group_size, double averaging_constant,
                            bool keep_extremes, bool skip_non_finite) {
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    observe_range(self, min_val, max_val, axis, group_size, averaging_constant, keep_extremes, skip_non_finite);
  }
  for (const auto& changed : {min_val, max_val}) {
    torch::autograd::impl::bump_version(changed);
  }
}

}  // namespace

void observe_range(const at::Tensor& x, const at::Tensor& min_val, const at::Tensor& max_val,
                   std::optional<int64_t> axis, std::optional<int64_t> group_size, double averaging_constant,
                   bool keep_extremes, bool skip_non_finite) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kRangeOp, "").typed<decltype(observe_range_op)>();
  op.call(x, min_val, max_val, axis, group_size, averaging_constant, keep_extremes, skip_non_finite);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  m.def(
      "observe_range(Tensor input, Tensor(a!) min_val, Tensor(b!) max_val, int? axis=None, int? group_size=None, "
      "float averaging_constant=1.0, bool keep_extremes=True, bool skip_non_finite=False) -> ()",
      {at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides});
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { m.impl("observe_range", TORCH_FN(observe_range_op)); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { m.impl("observe_range", TORCH_FN(observe_range_meta)); }
TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("observe_range", TORCH_FN(observe_range_autograd)); }
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) { m.impl("observe_range", torch::CppFunction::makeFallthrough()); }

}  // namespace torchslim::quant
