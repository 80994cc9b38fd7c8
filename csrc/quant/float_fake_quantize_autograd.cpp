// SPDX-License-Identifier: BSD-3-Clause
#include <torch/library.h>
#include <torchslim/quant/block_float_fake_quantize.h>
#include <torchslim/quant/float_fake_quantize.h>

#include "quant/float_fake_quantize.h"
#include "quant/scale_table.h"
#include "quant/straight_through.h"

namespace torchslim::quant {
namespace {

std::tuple<at::Tensor, at::Tensor> call_float_cut(const at::Tensor& self, int64_t exponent_bits, int64_t mantissa_bits,
                                                  int64_t bias, std::string_view specials, bool saturate,
                                                  const std::optional<at::Tensor>& scale, std::optional<int64_t> axis) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_float_fake_quantize_cut", "")
                             .typed<decltype(call_float_cut)>();
  return op.call(self, exponent_bits, mantissa_bits, bias, specials, saturate, scale, axis);
}

std::tuple<at::Tensor, at::Tensor> call_block_float_cut(const at::Tensor& self, int64_t exponent_bits,
                                                        int64_t mantissa_bits, int64_t bias, std::string_view specials,
                                                        int64_t block_size, int64_t axis) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_block_float_fake_quantize_cut", "")
                             .typed<decltype(call_block_float_cut)>();
  return op.call(self, exponent_bits, mantissa_bits, bias, specials, block_size, axis);
}

at::Tensor float_autograd(const at::Tensor& self, int64_t exponent_bits, int64_t mantissa_bits, int64_t bias,
                          std::string_view specials, bool saturate, const std::optional<at::Tensor>& scale,
                          std::optional<int64_t> axis, std::string_view gradient) {
  if (scale) {
    detail::check_no_gradient(detail::kFloatOp, "scale", *scale);
  }
  const FloatFormat format{exponent_bits, mantissa_bits, bias, std::string(specials), saturate};
  return detail::with_gradient<detail::kFloatOp>(
      self, detail::is_clipped(detail::kFloatOp, gradient),
      [&](const at::Tensor& x) { return float_fake_quantize(x, format, scale, axis, gradient); },
      [&](const at::Tensor& x) {
        return call_float_cut(x, exponent_bits, mantissa_bits, bias, specials, saturate, scale, axis);
      });
}

at::Tensor block_float_autograd(const at::Tensor& self, int64_t exponent_bits, int64_t mantissa_bits, int64_t bias,
                                std::string_view specials, int64_t block_size, int64_t axis,
                                std::string_view gradient) {
  const FloatFormat format{exponent_bits, mantissa_bits, bias, std::string(specials), true};
  return detail::with_gradient<detail::kBlockFloatOp>(
      self, detail::is_clipped(detail::kBlockFloatOp, gradient),
      [&](const at::Tensor& x) { return block_float_fake_quantize(x, format, block_size, axis, gradient); },
      [&](const at::Tensor& x) {
        return call_block_float_cut(x, exponent_bits, mantissa_bits, bias, specials, block_size, axis);
      });
}

}  // namespace

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) {
  m.impl("float_fake_quantize", TORCH_FN(float_autograd));
  m.impl("block_float_fake_quantize", TORCH_FN(block_float_autograd));
}

// Under autocast the ops keep their input's type: they compute in float32 anyway.
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  m.impl("float_fake_quantize", torch::CppFunction::makeFallthrough());
  m.impl("block_float_fake_quantize", torch::CppFunction::makeFallthrough());
}

}  // namespace torchslim::quant
