// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>
#include <torchslim/quant/fake_quantize_passthrough.h>

#include "quant/fake_quantize.h"
#include "quant/straight_through.h"

namespace torchslim::quant {
namespace {

using detail::Forward;

constexpr const char* kPassthroughOp = "torchslim::fake_quantize_passthrough";

template <Forward forward>
at::Tensor passthrough(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                       int64_t quant_max, std::optional<int64_t> axis) {
  return forward(kPassthroughOp, self,
                 {.scale_tensor = scale,
                  .zero_point_tensor = zero_point,
                  .quant_min = quant_min,
                  .quant_max = quant_max,
                  .axis = axis},
                 /*with_cut=*/false)
      .value;
}

at::Tensor passthrough_autograd(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                                int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis) {
  detail::check_no_grad(kPassthroughOp, scale);
  return detail::Passthrough<kPassthroughOp>::apply(self, [&](const at::Tensor& x) {
    return fake_quantize_passthrough(x, scale, zero_point, quant_min, quant_max, axis);
  });
}

}  // namespace

at::Tensor fake_quantize_passthrough(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                                     int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kPassthroughOp, "")
                             .typed<decltype(passthrough<detail::forward_cpu>)>();
  return op.call(x, scale, zero_point, quant_min, quant_max, axis);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  m.def(
      "fake_quantize_passthrough(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None) -> Tensor",
      {at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides});
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) { m.impl("fake_quantize_passthrough", passthrough<detail::forward_cpu>); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { m.impl("fake_quantize_passthrough", passthrough<detail::forward_meta>); }
TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  m.impl("fake_quantize_passthrough", passthrough<detail::forward_composite>);
}
TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("fake_quantize_passthrough", TORCH_FN(passthrough_autograd)); }
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  m.impl("fake_quantize_passthrough", torch::CppFunction::makeFallthrough());
}

}  // namespace torchslim::quant
