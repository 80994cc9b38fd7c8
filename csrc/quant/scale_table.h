// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/SmallVector.h>

#include <optional>
#include <string_view>

#include "quant/elementwise.h"
#include "quant/fake_quantize.h"
#include "quant/scales.h"

// What the fake-quantise ops with a scale, but without integer codes, share below the dispatcher.
namespace torchslim::quant::detail {

/// Throws unless `tensor`, the argument `name`, is a dense floating-point tensor on the device of `self`.
void check_companion(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& self);

/// Checks all of `scale` but its values: one element, or with `axis` one for each index of that dimension of `self`.
/// Returns the channel dimension, not negative.
std::optional<int64_t> check_scale_shape(const char* op, const at::Tensor& self, const at::Tensor& scale,
                                         std::optional<int64_t> axis);

/// Returns whether gradients are cut outside the range, rule `clipped`, or all passed, rule `passthrough`.
/// Throws for other names.
bool is_clipped(const char* op, std::string_view gradient);

/// The scales of a tensor's channels, checked, as kernels want them.
class ScaleTable {
 public:
  ScaleTable(const char* op, const at::Tensor& self, const at::Tensor& scale, std::optional<int64_t> axis);

  /// Returns the scales for a dense tensor with the shape and strides of `value`, which must not be empty.
  Scales for_layout(const at::Tensor& value) const;

 private:
  c10::SmallVector<float, 32> numbers_;  // 1 / scale of all channels, then scale
  std::optional<int64_t> axis_;
};

/// The scale as tensors that broadcast against `self`, in the type that its maths runs in; values are checked if they are
/// on the CPU, since reading them from another device would wait for it.
struct ScaleTensors {
  at::Tensor inverse_scale, scale;
};
ScaleTensors scale_tensors(const char* op, const at::Tensor& self, const at::Tensor& scale,
                           std::optional<int64_t> axis);

/// Returns an empty result with the layout of `self`, for Meta.
Quantized like_input(const at::Tensor& self, bool with_cut);

/// Packs booleans, in the order in which they lie in memory, into bits, lowest first.
at::Tensor pack_bits(const at::Tensor& flags);

/// Returns a value like `self` and, if asked for, its cut bits. prepare(value) sees the layout that was chosen and returns
/// work(x, y, cut, begin, end, stream), which fills elements [begin, end); x and y point to self's type, cut may be null.
/// Parts begin at multiples of chunk(value), itself a multiple of 8.
template <typename Prepare, typename Chunk>
Quantized quantize_chunks(const at::Tensor& self, bool with_cut, const Prepare& prepare, const Chunk& chunk) {
  const int64_t n = self.numel();
  Quantized result{large(at::empty_like(self)), {}};
  if (with_cut) {
    result.cut = at::empty({(n + 7) / 8}, self.options().dtype(at::kByte));
  }
  if (n == 0) {
    return result;
  }
  const auto source = in_layout_of(self, result.value);
  const auto work = prepare(result.value);
  const bool stream = core::worth_streaming(result.value.nbytes());
  uint8_t* cut = with_cut ? result.cut.mutable_data_ptr<uint8_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, self.scalar_type(), "quantize_chunks", [&] {
    const scalar_t* x = source.const_data_ptr<scalar_t>();
    scalar_t* y = result.value.mutable_data_ptr<scalar_t>();
    for_each_chunk(n, [&](int64_t begin, int64_t end) { work(x, y, cut, begin, end, stream); }, chunk(result.value));
  });
  return result;
}

template <typename Prepare>
Quantized quantize_chunks(const at::Tensor& self, bool with_cut, const Prepare& prepare) {
  return quantize_chunks(self, with_cut, prepare, [](const at::Tensor&) { return kChunk; });
}

}  // namespace torchslim::quant::detail
