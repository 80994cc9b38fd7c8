// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/ones.h>

#include <cmath>
#include <numeric>

#include "core/composite.h"
#include "quant/float_fake_quantize.h"
#include "quant/float_fake_quantize_kernel.h"
#include "quant/float_format.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {

// How the blocks of a dense tensor lie in memory: units of block · inner neighbouring elements that hold `inner` blocks.
struct Blocks {
  int64_t block, inner;

  Blocks(const at::Tensor& value, int64_t axis, int64_t block_size)
      : block(block_size), inner(value.size(axis) > 1 ? value.stride(axis) : 1) {}

  int64_t unit() const { return block * inner; }

  // Some 32768 elements that hold whole units and begin at a multiple of 8, for the bits.
  int64_t chunk() const {
    const int64_t least = std::lcm(unit(), int64_t{8});
    return least * std::max<int64_t>(1, kChunk / least);
  }

  Scales scales(const float* scale, const float* inverse_scale, int64_t units) const {
    const bool neighbours = inner > 1;
    return {.inverse_scale = inverse_scale,
            .scale = scale,
            .run = neighbours ? inner : block,
            .repeat = neighbours ? block : 1,
            .groups = units,
            .neighbours = neighbours};
  }
};

}  // namespace

Quantized float_cpu(const at::Tensor& self, const FloatArguments& arguments, bool with_cut) {
  if (core::composite_on_cpu()) {
    return float_composite(self, arguments, with_cut);
  }
  check_float(self, arguments);
  const auto& scale = arguments.scale;
  const ScaleTable scale_table(kFloatOp, self, scale.defined() ? scale : at::ones({}), arguments.axis);
  const FloatGrid grid = float_grid(arguments.format);
  return quantize_chunks(self, with_cut, [&](const at::Tensor& value) {
    return [&grid, scales = scale_table.for_layout(value)](const auto* x, auto* y, uint8_t* cut, int64_t begin,
                                                           int64_t end, bool stream) {
      TORCHSLIM_CALL_KERNEL(float_span, x, y, cut, begin, end, scales, grid, stream);
    };
  });
}

Quantized block_float_cpu(const at::Tensor& self, const BlockFloatArguments& arguments, bool with_cut) {
  if (core::composite_on_cpu()) {
    return block_float_composite(self, arguments, with_cut);
  }
  const int64_t axis = check_block_float(self, arguments);
  const FloatGrid grid = float_grid(arguments.format);
  const int exponent = largest_exponent(arguments.format);
  const int64_t count = self.numel() / arguments.block_size;
  const auto numbers = at::empty({2, count}, at::kFloat);
  float* scale = numbers.mutable_data_ptr<float>();
  float* inverse_scale = scale + count;
  return quantize_chunks(
      self, with_cut,
      [&](const at::Tensor& value) {
        const Blocks blocks(value, axis, arguments.block_size);
        const Scales scales = blocks.scales(scale, inverse_scale, count / blocks.inner);
        return [=, &grid](const auto* x, auto* y, uint8_t* cut, int64_t begin, int64_t end, bool stream) {
          // Chunk by chunk, so that what was read for the scales is still in the cache when it is rounded.
          for (int64_t first = begin; first < end; first += blocks.chunk()) {
            const int64_t last = std::min(first + blocks.chunk(), end);
            TORCHSLIM_CALL_KERNEL(block_scales, x, first / blocks.unit(), last / blocks.unit(), blocks.block,
                                  blocks.inner, exponent, scale, inverse_scale);
            TORCHSLIM_CALL_KERNEL(float_span, x, y, cut, first, last, scales, grid, stream);
          }
        };
      },
      [&](const at::Tensor& value) { return Blocks(value, axis, arguments.block_size).chunk(); });
}

}  // namespace torchslim::quant::detail
