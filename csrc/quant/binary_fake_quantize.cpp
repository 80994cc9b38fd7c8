// SPDX-License-Identifier: BSD-3-Clause
#include "quant/binary_fake_quantize.h"

#include <torch/library.h>
#include <torchslim/quant/binary_fake_quantize.h>

#include <tuple>

#include "quant/scale_table.h"
#include "quant/straight_through.h"

namespace torchslim::quant {
namespace detail {

std::optional<int64_t> check_sign(const at::Tensor& self, std::optional<int64_t> axis, bool ternary) {
  const char* op = ternary ? kTernaryOp : kBinaryOp;
  check_input(op, self);
  return axis ? std::optional<int64_t>(check_axis(op, *axis, self.dim())) : std::nullopt;
}

Quantized sign_meta(const at::Tensor& self, std::optional<int64_t> axis, bool ternary, bool with_cut) {
  check_sign(self, axis, ternary);
  return like_input(self, with_cut);
}

}  // namespace detail

namespace {

using OptionalAxis = std::optional<int64_t>;
using SignAndCut = std::tuple<at::Tensor, at::Tensor>;

template <detail::SignForward forward, bool ternary>
at::Tensor sign_value(const at::Tensor& self, OptionalAxis axis, std::string_view gradient) {
  detail::is_clipped(ternary ? detail::kTernaryOp : detail::kBinaryOp, gradient);
  return forward(self, axis, ternary, false).value;
}

template <detail::SignForward forward>
SignAndCut sign_cut(const at::Tensor& self, OptionalAxis axis, bool ternary) {
  const auto result = forward(self, axis, ternary, true);
  return {result.value, result.cut};
}

template <detail::SignForward forward>
void register_signs(torch::Library& m) {
  m.impl("binary_fake_quantize", TORCH_FN((sign_value<forward, false>)));
  m.impl("ternary_fake_quantize", TORCH_FN((sign_value<forward, true>)));
  m.impl("_sign_fake_quantize_cut", TORCH_FN(sign_cut<forward>));
}

SignAndCut call_sign_cut(const at::Tensor& self, OptionalAxis axis, bool ternary) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_sign_fake_quantize_cut", "")
                             .typed<decltype(call_sign_cut)>();
  return op.call(self, axis, ternary);
}

at::Tensor binary_autograd(const at::Tensor& self, OptionalAxis axis, std::string_view gradient) {
  return detail::with_gradient<detail::kBinaryOp>(
      self, detail::is_clipped(detail::kBinaryOp, gradient),
      [&](const at::Tensor& x) { return binary_fake_quantize(x, axis, gradient); },
      [&](const at::Tensor& x) { return call_sign_cut(x, axis, false); });
}

at::Tensor ternary_autograd(const at::Tensor& self, OptionalAxis axis, std::string_view gradient) {
  return detail::with_gradient<detail::kTernaryOp>(
      self, detail::is_clipped(detail::kTernaryOp, gradient),
      [&](const at::Tensor& x) { return ternary_fake_quantize(x, axis, gradient); },
      [&](const at::Tensor& x) { return call_sign_cut(x, axis, true); });
}

}  // namespace

at::Tensor binary_fake_quantize(const at::Tensor& x, std::optional<int64_t> axis, std::string_view gradient) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(detail::kBinaryOp, "").typed<decltype(binary_autograd)>();
  return op.call(x, axis, gradient);
}

at::Tensor ternary_fake_quantize(const at::Tensor& x, std::optional<int64_t> axis, std::string_view gradient) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(detail::kTernaryOp, "").typed<decltype(ternary_autograd)>();
  return op.call(x, axis, gradient);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides};
  m.def("binary_fake_quantize(Tensor self, int? axis=None, str gradient=\"clipped\") -> Tensor", tags);
  m.def("ternary_fake_quantize(Tensor self, int? axis=None, str gradient=\"passthrough\") -> Tensor", tags);
  m.def("_sign_fake_quantize_cut(Tensor self, int? axis, bool ternary) -> (Tensor, Tensor)", tags);
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) { register_signs<detail::sign_cpu>(m); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { register_signs<detail::sign_meta>(m); }
TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { register_signs<detail::sign_composite>(m); }

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) {
  m.impl("binary_fake_quantize", TORCH_FN(binary_autograd));
  m.impl("ternary_fake_quantize", TORCH_FN(ternary_autograd));
}

// Under autocast the ops keep their input's type: they compute in float32 anyway.
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  m.impl("binary_fake_quantize", torch::CppFunction::makeFallthrough());
  m.impl("ternary_fake_quantize", torch::CppFunction::makeFallthrough());
}

}  // namespace torchslim::quant
