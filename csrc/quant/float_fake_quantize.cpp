// SPDX-License-Identifier: BSD-3-Clause
#include "quant/float_fake_quantize.h"

#include <torch/library.h>
#include <torchslim/quant/block_float_fake_quantize.h>
#include <torchslim/quant/float_fake_quantize.h>

#include <cmath>
#include <tuple>

#include "quant/float_format.h"
#include "quant/scale_table.h"

namespace torchslim::quant {
namespace detail {

int largest_exponent(const FloatFormat& format) { return std::ilogb(format.max()); }

void check_float(const at::Tensor& self, const FloatArguments& arguments) {
  check_input(kFloatOp, self);
  check_format(kFloatOp, arguments.format);
  TORCH_CHECK_VALUE(arguments.scale.defined() || !arguments.axis, kFloatOp, ": axis ", arguments.axis.value_or(0),
                    " needs a scale for each channel");
}

int64_t check_block_float(const at::Tensor& self, const BlockFloatArguments& arguments) {
  check_input(kBlockFloatOp, self);
  check_format(kBlockFloatOp, arguments.format);
  TORCH_CHECK_VALUE(arguments.format.max() >= 1, kBlockFloatOp,
                    ": the largest number of the format must be at least 1, got ", arguments.format.max());
  const int64_t axis = check_axis(kBlockFloatOp, arguments.axis, self.dim());
  TORCH_CHECK_VALUE(arguments.block_size >= 1, kBlockFloatOp, ": block_size must be at least 1, got ",
                    arguments.block_size);
  TORCH_CHECK_VALUE(self.sym_size(axis) % arguments.block_size == 0, kBlockFloatOp, ": block_size ",
                    arguments.block_size, " must divide the size of dimension ", axis, ", got ", self.sym_size(axis),
                    "; pad the tensor");
  return axis;
}

Quantized float_meta(const at::Tensor& self, const FloatArguments& arguments, bool with_cut) {
  check_float(self, arguments);
  if (arguments.scale.defined()) {
    check_scale_shape(kFloatOp, self, arguments.scale, arguments.axis);
  }
  return like_input(self, with_cut);
}

Quantized block_float_meta(const at::Tensor& self, const BlockFloatArguments& arguments, bool with_cut) {
  check_block_float(self, arguments);
  return like_input(self, with_cut);
}

}  // namespace detail

namespace {

using OptionalTensor = std::optional<at::Tensor>;
using ValueAndCut = std::tuple<at::Tensor, at::Tensor>;

FloatFormat as_format(int64_t exponent_bits, int64_t mantissa_bits, int64_t bias, std::string_view specials,
                      bool saturate) {
  return {exponent_bits, mantissa_bits, bias, std::string(specials), saturate};
}

template <detail::FloatForward forward>
at::Tensor float_value(const at::Tensor& self, int64_t exponent_bits, int64_t mantissa_bits, int64_t bias,
                       std::string_view specials, bool saturate, const OptionalTensor& scale,
                       std::optional<int64_t> axis, std::string_view gradient) {
  detail::is_clipped(detail::kFloatOp, gradient);
  const auto format = as_format(exponent_bits, mantissa_bits, bias, specials, saturate);
  return forward(self, {format, scale.value_or(at::Tensor()), axis}, false).value;
}

template <detail::FloatForward forward>
ValueAndCut float_cut(const at::Tensor& self, int64_t exponent_bits, int64_t mantissa_bits, int64_t bias,
                      std::string_view specials, bool saturate, const OptionalTensor& scale,
                      std::optional<int64_t> axis) {
  const auto format = as_format(exponent_bits, mantissa_bits, bias, specials, saturate);
  const auto result = forward(self, {format, scale.value_or(at::Tensor()), axis}, true);
  return {result.value, result.cut};
}

template <detail::BlockFloatForward forward>
at::Tensor block_float_value(const at::Tensor& self, int64_t exponent_bits, int64_t mantissa_bits, int64_t bias,
                             std::string_view specials, int64_t block_size, int64_t axis, std::string_view gradient) {
  detail::is_clipped(detail::kBlockFloatOp, gradient);
  const auto format = as_format(exponent_bits, mantissa_bits, bias, specials, true);
  return forward(self, {format, block_size, axis}, false).value;
}

template <detail::BlockFloatForward forward>
ValueAndCut block_float_cut(const at::Tensor& self, int64_t exponent_bits, int64_t mantissa_bits, int64_t bias,
                            std::string_view specials, int64_t block_size, int64_t axis) {
  const auto format = as_format(exponent_bits, mantissa_bits, bias, specials, true);
  const auto result = forward(self, {format, block_size, axis}, true);
  return {result.value, result.cut};
}

template <detail::FloatForward forward, detail::BlockFloatForward block_forward>
void register_floats(torch::Library& m) {
  m.impl("float_fake_quantize", TORCH_FN(float_value<forward>));
  m.impl("_float_fake_quantize_cut", TORCH_FN(float_cut<forward>));
  m.impl("block_float_fake_quantize", TORCH_FN(block_float_value<block_forward>));
  m.impl("_block_float_fake_quantize_cut", TORCH_FN(block_float_cut<block_forward>));
}

}  // namespace

at::Tensor float_fake_quantize(const at::Tensor& x, const FloatFormat& format, const OptionalTensor& scale,
                               std::optional<int64_t> axis, std::string_view gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(detail::kFloatOp, "")
                             .typed<decltype(float_value<detail::float_cpu>)>();
  return op.call(x, format.exponent_bits, format.mantissa_bits, format.bias, format.specials, format.saturate, scale,
                 axis, gradient);
}

at::Tensor block_float_fake_quantize(const at::Tensor& x, const FloatFormat& format, int64_t block_size, int64_t axis,
                                     std::string_view gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(detail::kBlockFloatOp, "")
                             .typed<decltype(block_float_value<detail::block_float_cpu>)>();
  return op.call(x, format.exponent_bits, format.mantissa_bits, format.bias, format.specials, block_size, axis,
                 gradient);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides};
  m.def(
      "float_fake_quantize(Tensor self, int exponent_bits, int mantissa_bits, int bias, str specials, bool saturate, "
      "Tensor? scale=None, int? axis=None, str gradient=\"clipped\") -> Tensor",
      tags);
  m.def(
      "_float_fake_quantize_cut(Tensor self, int exponent_bits, int mantissa_bits, int bias, str specials, "
      "bool saturate, Tensor? scale=None, int? axis=None) -> (Tensor, Tensor)",
      tags);
  m.def(
      "block_float_fake_quantize(Tensor self, int exponent_bits, int mantissa_bits, int bias, str specials, "
      "int block_size=32, int axis=-1, str gradient=\"clipped\") -> Tensor",
      tags);
  m.def(
      "_block_float_fake_quantize_cut(Tensor self, int exponent_bits, int mantissa_bits, int bias, str specials, "
      "int block_size=32, int axis=-1) -> (Tensor, Tensor)",
      tags);
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) { register_floats<detail::float_cpu, detail::block_float_cpu>(m); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { register_floats<detail::float_meta, detail::block_float_meta>(m); }
TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  register_floats<detail::float_composite, detail::block_float_composite>(m);
}

}  // namespace torchslim::quant
