// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <c10/util/SmallVector.h>

#include "core/composite.h"
#include "quant/elementwise.h"
#include "quant/fake_quantize.h"
#include "quant/fake_quantize_kernel.h"
#include "quant/grid_table.h"
#include "quant/observer.h"

namespace torchslim::quant::detail {

Quantized forward_cpu(const char* op, const at::Tensor& self, const Qparams& qparams, bool with_cut) {
  if (core::composite_on_cpu()) {
    return forward_composite(op, self, qparams, with_cut);
  }
  const GridTable table(op, self, qparams);
  const int64_t n = self.numel();
  Quantized result{large(at::empty_like(self)), {}};
  if (with_cut) {
    result.cut = at::empty({(n + 7) / 8}, self.options().dtype(at::kByte));
  }
  if (n == 0) {
    return result;
  }
  const auto source = in_layout_of(self, result.value);
  const auto grids = table.for_layout(result.value);
  const bool stream = core::worth_streaming(result.value.nbytes());
  uint8_t* cut = with_cut ? result.cut.mutable_data_ptr<uint8_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, self.scalar_type(), "fake_quantize", [&] {
    const scalar_t* x = source.const_data_ptr<scalar_t>();
    scalar_t* y = result.value.mutable_data_ptr<scalar_t>();
    for_each_chunk(n, [&](int64_t begin, int64_t end) {
      if (qparams.seed) {
        TORCHSLIM_CALL_KERNEL(fake_quantize_stochastic_span<scalar_t>, x, y, cut, begin, end, grids, *qparams.seed,
                              stream);
      } else {
        TORCHSLIM_CALL_KERNEL(fake_quantize_span<scalar_t>, x, y, cut, begin, end, grids, stream);
      }
    });
  });
  return result;
}

Range range_cpu(const at::Tensor& x) {
  const int64_t n = x.numel();
  const auto source = x.is_non_overlapping_and_dense() ? x : x.contiguous();
  // A thread that takes several chunks at once sets the first of them: the others must not count.
  c10::SmallVector<Range, 64> ranges((n + kChunk - 1) / kChunk, Range{INFINITY, -INFINITY});
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "range", [&] {
    const scalar_t* data = source.const_data_ptr<scalar_t>();
    for_each_chunk(n, [&](int64_t begin, int64_t end) {
      float low, high;
      TORCHSLIM_CALL_KERNEL(range_span<scalar_t>, data + begin, end - begin, &low, &high);
      ranges[begin / kChunk] = {low, high};
    });
  });
  Range all = ranges.front();
  for (const auto& range : ranges) {
    all.min = range.min < all.min || range.min != range.min ? range.min : all.min;
    all.max = range.max > all.max || range.max != range.max ? range.max : all.max;
  }
  return {all.min + 0.0, all.max + 0.0};  // +0 for -0: which of them comes first depends on the chunks
}

at::Tensor backward_cpu(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride) {
  check_input("torchslim::_fake_quantize_backward", grad);
  if (core::composite_on_cpu()) {
    return backward_composite(grad, cut, stride);
  }
  const int64_t n = grad.numel();
  TORCH_CHECK_VALUE(cut.scalar_type() == at::kByte && cut.numel() == (n + 7) / 8 && cut.is_contiguous(),
                    "torchslim::_fake_quantize_backward: cut must hold one bit per element of grad, ", (n + 7) / 8,
                    " bytes, got ", cut.scalar_type(), " of shape ", cut.sizes());
  auto result = large(at::empty_strided(grad.sizes(), C10_AS_INTARRAYREF_SLOW(stride), grad.options()));
  TORCH_CHECK_VALUE(result.is_non_overlapping_and_dense(),
                    "torchslim::_fake_quantize_backward: stride must be that of a dense tensor, got ", stride);
  const auto source = in_layout_of(grad, result);
  const bool stream = core::worth_streaming(result.nbytes());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, grad.scalar_type(), "_fake_quantize_backward", [&] {
    const scalar_t* dy = source.const_data_ptr<scalar_t>();
    const uint8_t* bits = cut.const_data_ptr<uint8_t>();
    scalar_t* dx = result.mutable_data_ptr<scalar_t>();
    for_each_chunk(n, [&](int64_t begin, int64_t end) {
      TORCHSLIM_CALL_KERNEL(cut_gradient_span<scalar_t>, dy, bits, dx, begin, end, stream);
    });
  });
  return result;
}

}  // namespace torchslim::quant::detail
