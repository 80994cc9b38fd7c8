// SPDX-License-Identifier: BSD-3-Clause
#include <torch/library.h>
#include <torchslim/quant/level_fake_quantize.h>

#include "quant/level_fake_quantize.h"
#include "quant/scale_table.h"
#include "quant/straight_through.h"

namespace torchslim::quant {
namespace {

std::tuple<at::Tensor, at::Tensor> call_level_cut(const at::Tensor& self, const at::Tensor& levels,
                                                  const at::Tensor& scale, std::optional<int64_t> axis) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_level_fake_quantize_cut", "")
                             .typed<decltype(call_level_cut)>();
  return op.call(self, levels, scale, axis);
}

at::Tensor level_autograd(const at::Tensor& self, const at::Tensor& levels, const at::Tensor& scale,
                          std::optional<int64_t> axis, std::string_view gradient) {
  detail::check_no_gradient(detail::kLevelOp, "levels", levels);
  detail::check_no_gradient(detail::kLevelOp, "scale", scale);
  return detail::with_gradient<detail::kLevelOp>(
      self, detail::is_clipped(detail::kLevelOp, gradient),
      [&](const at::Tensor& x) { return level_fake_quantize(x, levels, scale, axis, gradient); },
      [&](const at::Tensor& x) { return call_level_cut(x, levels, scale, axis); });
}

}  // namespace

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("level_fake_quantize", TORCH_FN(level_autograd)); }

// Under autocast the op keeps its input's type: it computes in float32 anyway.
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) { m.impl("level_fake_quantize", torch::CppFunction::makeFallthrough()); }

}  // namespace torchslim::quant
