// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <c10/util/SmallVector.h>

#include <limits>

#include "core/composite.h"
#include "core/rounding.h"
#include "quant/elementwise.h"
#include "quant/fake_quantize.h"
#include "quant/fake_quantize_kernel.h"
#include "quant/observer.h"

namespace torchslim::quant::detail {
namespace {

// The grid of each channel as the kernel wants it.
class GridTable {
 public:
  GridTable(const char* op, const at::Tensor& self, const Qparams& qparams) {
    const auto axis = check_qparams(op, self, qparams);
    if (qparams.scale_tensor.defined()) {
      fill_from_tensors(op, qparams);
    } else {
      resize(1);
      set(0, qparams, static_cast<float>(qparams.scale), static_cast<float>(qparams.zero_point));
    }
    grids_.pass_above = static_cast<float>(qparams.clamp_min.value_or(-INFINITY));
    grids_.pass_below = static_cast<float>(qparams.clamp_max.value_or(INFINITY));
    grids_.float_values = !axis;
    axis_ = axis;
  }

  // Returns the grids for a dense tensor with the shape and strides of `value`.
  ChannelGrids for_layout(const at::Tensor& value) const {
    ChannelGrids grids = grids_;
    grids.channels = axis_ ? value.size(*axis_) : 1;
    grids.inner = grids.channels > 1 ? value.stride(*axis_) : value.numel();
    return grids;
  }

 private:
  void resize(int64_t channels) {
    numbers_.resize(4 * channels);
    grids_.channels = channels;
    grids_.inverse_scale = numbers_.data();
    grids_.scale = grids_.inverse_scale + channels;
    grids_.low = grids_.scale + channels;
    grids_.high = grids_.low + channels;
  }

  void set(int64_t channel, const Qparams& qparams, float scale, float zero_point) {
    const auto channels = grids_.channels;
    core::StepGrid<float> grid{1.0f / scale, scale, static_cast<float>(qparams.quant_min) - zero_point,
                               static_cast<float>(qparams.quant_max) - zero_point};
    // Rounding keeps order, so a clamp of x is a clamp of its steps.
    const float low = grid.low;
    if (qparams.clamp_min) {
      const auto steps = core::steps_from_zero(static_cast<float>(*qparams.clamp_min), grid);
      grid.low = core::clamp(steps, low, grid.high);
    }
    if (qparams.clamp_max) {
      const auto steps = core::steps_from_zero(static_cast<float>(*qparams.clamp_max), grid);
      grid.high = core::clamp(steps, low, grid.high);
    }
    float* numbers = numbers_.data() + channel;
    numbers[0] = grid.inverse_scale;
    numbers[channels] = grid.scale;
    numbers[2 * channels] = grid.low;
    numbers[3 * channels] = grid.high;
  }

  void fill_from_tensors(const char* op, const Qparams& qparams) {
    const auto scale = qparams.scale_tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    const auto type = qparams.zero_point_tensor.scalar_type();
    const auto zero_point =
        qparams.zero_point_tensor.detach().to(at::kCPU, type == at::kInt ? at::kInt : at::kDouble).contiguous();
    const float* scales = scale.const_data_ptr<float>();
    resize(scale.numel());
    for (int64_t c = 0; c < grids_.channels; ++c) {
      const double offset =
          type == at::kInt ? zero_point.const_data_ptr<int32_t>()[c] : zero_point.const_data_ptr<double>()[c];
      check_channel(op, qparams, c, scales[c], offset);
      set(c, qparams, scales[c], static_cast<float>(offset));
    }
  }

  void check_channel(const char* op, const Qparams& qparams, int64_t channel, float scale, double zero_point) const {
    const bool valid = std::isnormal(scale) && scale > 0 && zero_point == std::floor(zero_point) &&
                       zero_point >= static_cast<double>(qparams.quant_min) &&
                       zero_point <= static_cast<double>(qparams.quant_max);
    if (!valid) {  // the message costs more than the tensor: build it only now
      const auto where = qparams.axis ? " in channel " + std::to_string(channel) : std::string();
      check_scale(op, scale, where);
      check_zero_point(op, zero_point, qparams.quant_min, qparams.quant_max, where);
    }
  }

  c10::SmallVector<float, 64> numbers_;
  ChannelGrids grids_{};
  std::optional<int64_t> axis_;
};

}  // namespace

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
      TORCHSLIM_CALL_KERNEL(fake_quantize_span<scalar_t>, x, y, cut, begin, end, grids, stream);
    });
  });
  return result;
}

Range range_cpu(const at::Tensor& x) {
  const int64_t n = x.numel();
  const auto source = x.is_non_overlapping_and_dense() ? x : x.contiguous();
  c10::SmallVector<Range, 64> ranges((n + kChunk - 1) / kChunk);
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
