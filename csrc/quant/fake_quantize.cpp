// SPDX-License-Identifier: BSD-3-Clause
#include "quant/fake_quantize.h"

#include <ATen/ops/empty_strided.h>
#include <torch/library.h>
#include <torchslim/quant/fake_quantize.h>

#include <tuple>

#include "quant/scale_table.h"

namespace torchslim::quant {
namespace detail {

Quantized forward_meta(const char* op, const at::Tensor& self, const Qparams& qparams, bool with_cut) {
  check_qparams(op, self, qparams);
  return like_input(self, with_cut);
}

at::Tensor backward_meta(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride) {
  return at::empty_strided_symint(grad.sym_sizes(), stride, grad.options());
}

}  // namespace detail

namespace {

using detail::Forward;
using detail::Qparams;
using Values = std::tuple<at::Tensor, at::Tensor>;

constexpr const char* kOp = "torchslim::fake_quantize";
constexpr const char* kClampOp = "torchslim::clamp_fake_quantize";

Qparams from_numbers(double scale, int64_t zero_point, int64_t quant_min, int64_t quant_max) {
  return {.scale = scale, .zero_point = zero_point, .quant_min = quant_min, .quant_max = quant_max};
}

Qparams from_tensors(const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  return {.scale_tensor = scale, .zero_point_tensor = zero_point, .quant_min = quant_min, .quant_max = quant_max};
}

template <Forward forward>
at::Tensor per_number(const at::Tensor& self, double scale, int64_t zero_point, int64_t quant_min, int64_t quant_max) {
  return forward(kOp, self, from_numbers(scale, zero_point, quant_min, quant_max), false).value;
}

template <Forward forward>
Values per_number_cut(const at::Tensor& self, double scale, int64_t zero_point, int64_t quant_min, int64_t quant_max) {
  const auto result = forward(kOp, self, from_numbers(scale, zero_point, quant_min, quant_max), true);
  return {result.value, result.cut};
}

template <Forward forward>
at::Tensor per_tensor(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                      int64_t quant_max, std::optional<int64_t> axis) {
  Qparams qparams = from_tensors(scale, zero_point, quant_min, quant_max);
  qparams.axis = axis;
  return forward(kOp, self, qparams, false).value;
}

template <Forward forward>
at::Tensor clamped(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                   int64_t quant_max, std::optional<double> clamp_min, std::optional<double> clamp_max) {
  Qparams qparams = from_tensors(scale, zero_point, quant_min, quant_max);
  qparams.clamp_min = clamp_min;
  qparams.clamp_max = clamp_max;
  return forward(kClampOp, self, qparams, false).value;
}

template <Forward forward>
Values per_tensor_cut(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                      int64_t quant_max, std::optional<int64_t> axis, std::optional<double> clamp_min,
                      std::optional<double> clamp_max) {
  Qparams qparams = from_tensors(scale, zero_point, quant_min, quant_max);
  qparams.axis = axis;
  qparams.clamp_min = clamp_min;
  qparams.clamp_max = clamp_max;
  const auto result = forward(clamp_min || clamp_max ? kClampOp : kOp, self, qparams, true);
  return {result.value, result.cut};
}

template <Forward forward>
void register_forward(torch::Library& m) {
  m.impl("fake_quantize", TORCH_FN(per_number<forward>));
  m.impl("fake_quantize.tensor_qparams", TORCH_FN(per_tensor<forward>));
  m.impl("clamp_fake_quantize", TORCH_FN(clamped<forward>));
  m.impl("_fake_quantize_cut", TORCH_FN(per_number_cut<forward>));
  m.impl("_fake_quantize_cut.tensor_qparams", TORCH_FN(per_tensor_cut<forward>));
}

}  // namespace

at::Tensor fake_quantize(const at::Tensor& x, double scale, int64_t zero_point, int64_t quant_min, int64_t quant_max) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::fake_quantize", "")
                             .typed<decltype(per_number<detail::forward_cpu>)>();
  return op.call(x, scale, zero_point, quant_min, quant_max);
}

at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                         int64_t quant_max, std::optional<int64_t> axis) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::fake_quantize", "tensor_qparams")
                             .typed<decltype(per_tensor<detail::forward_cpu>)>();
  return op.call(x, scale, zero_point, quant_min, quant_max, axis);
}

at::Tensor clamp_fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                               int64_t quant_min, int64_t quant_max, std::optional<double> clamp_min,
                               std::optional<double> clamp_max) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::clamp_fake_quantize", "")
                             .typed<decltype(clamped<detail::forward_cpu>)>();
  return op.call(x, scale, zero_point, quant_min, quant_max, clamp_min, clamp_max);
}

// The ops with `_cut` are what the first three run as where a gradient is wanted. Tensors keep the strides that the
// kernels saw: the bits of `cut` follow them.
TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides};
  m.def("fake_quantize(Tensor self, float scale, int zero_point, int quant_min, int quant_max) -> Tensor", tags);
  m.def(
      "fake_quantize.tensor_qparams(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None) -> Tensor",
      tags);
  m.def(
      "clamp_fake_quantize(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "float? clamp_min=None, float? clamp_max=None) -> Tensor",
      tags);
  m.def(
      "_fake_quantize_cut(Tensor self, float scale, int zero_point, int quant_min, int quant_max) -> (Tensor, Tensor)",
      tags);
  m.def(
      "_fake_quantize_cut.tensor_qparams(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None, float? clamp_min=None, float? clamp_max=None) -> (Tensor, Tensor)",
      tags);
  m.def("_fake_quantize_backward(Tensor grad, Tensor cut, SymInt[] stride) -> Tensor", tags);
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) {
  register_forward<detail::forward_cpu>(m);
  m.impl("_fake_quantize_backward", TORCH_FN(detail::backward_cpu));
}

TORCH_LIBRARY_IMPL(torchslim, Meta, m) {
  register_forward<detail::forward_meta>(m);
  m.impl("_fake_quantize_backward", TORCH_FN(detail::backward_meta));
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  register_forward<detail::forward_composite>(m);
  m.impl("_fake_quantize_backward", TORCH_FN(detail::backward_composite));
}

}  // namespace torchslim::quant
