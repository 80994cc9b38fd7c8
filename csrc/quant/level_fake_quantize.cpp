// SPDX-License-Identifier: BSD-3-Clause
#include "quant/level_fake_quantize.h"

#include <torch/library.h>
#include <torchslim/quant/level_fake_quantize.h>

#include <tuple>

#include "quant/scale_table.h"

namespace torchslim::quant {
namespace detail {

Quantized level_meta(const at::Tensor& self, const LevelArguments& arguments, bool with_cut) {
  check_levels(self, arguments.levels);
  check_scale_shape(kLevelOp, self, arguments.scale, arguments.axis);
  return like_input(self, with_cut);
}

}  // namespace detail

namespace {

template <detail::LevelForward forward>
at::Tensor level_value(const at::Tensor& self, const at::Tensor& levels, const at::Tensor& scale,
                       std::optional<int64_t> axis, std::string_view gradient) {
  detail::is_clipped(detail::kLevelOp, gradient);
  return forward(self, {levels, scale, axis}, false).value;
}

template <detail::LevelForward forward>
std::tuple<at::Tensor, at::Tensor> level_cut(const at::Tensor& self, const at::Tensor& levels, const at::Tensor& scale,
                                             std::optional<int64_t> axis) {
  const auto result = forward(self, {levels, scale, axis}, true);
  return {result.value, result.cut};
}

template <detail::LevelForward forward>
void register_levels(torch::Library& m) {
  m.impl("level_fake_quantize", TORCH_FN(level_value<forward>));
  m.impl("_level_fake_quantize_cut", TORCH_FN(level_cut<forward>));
}

}  // namespace

at::Tensor level_fake_quantize(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& scale,
                               std::optional<int64_t> axis, std::string_view gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(detail::kLevelOp, "")
                             .typed<decltype(level_value<detail::level_cpu>)>();
  return op.call(x, levels, scale, axis, gradient);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides};
  m.def(
      "level_fake_quantize(Tensor self, Tensor levels, Tensor scale, int? axis=None, str gradient=\"clipped\") -> "
      "Tensor",
      tags);
  m.def("_level_fake_quantize_cut(Tensor self, Tensor levels, Tensor scale, int? axis=None) -> (Tensor, Tensor)", tags);
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) { register_levels<detail::level_cpu>(m); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { register_levels<detail::level_meta>(m); }
TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { register_levels<detail::level_composite>(m); }

}  // namespace torchslim::quant
