// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/randint.h>
#include <torch/library.h>
#include <torchslim/quant/fake_quantize_stochastic.h>

#include <limits>
#include <tuple>

#include "quant/fake_quantize.h"
#include "quant/fake_quantize_autograd.h"

namespace torchslim::quant {
namespace {

using detail::Forward;
using ValueAndCut = std::tuple<at::Tensor, at::Tensor>;

constexpr const char* kStochasticOp = "torchslim::fake_quantize_stochastic";

void check_seed(const at::Tensor& seed, c10::Device device) {
  TORCH_CHECK_TYPE(seed.scalar_type() == at::kLong, kStochasticOp, ": seed must be int64, got ", seed.scalar_type());
  TORCH_CHECK_VALUE(seed.sym_numel() == 1, kStochasticOp, ": seed must have one element, got shape ", seed.sym_sizes());
  TORCH_CHECK_VALUE(seed.is_cpu() || seed.device() == device, kStochasticOp,
                    ": seed must be on the CPU or on the input's device ", device, ", got ", seed.device(),
                    "; move it with to()");
}

template <Forward forward>
ValueAndCut run_stochastic(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                           int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis, const at::Tensor& seed,
                           bool with_cut) {
  check_seed(seed, self.device());
  detail::Qparams qparams{.scale_tensor = scale,
                          .zero_point_tensor = zero_point,
                          .quant_min = quant_min,
                          .quant_max = quant_max,
                          .axis = axis};
  qparams.seed = forward == detail::forward_meta ? 0 : static_cast<uint64_t>(seed.item<int64_t>());
  const auto result = forward(kStochasticOp, self, qparams, with_cut);
  return {result.value, result.cut};
}

template <Forward forward>
at::Tensor stochastic(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                      int64_t quant_max, std::optional<int64_t> axis, const at::Tensor& seed) {
  return std::get<0>(
      run_stochastic<forward>(self, scale, zero_point, quant_min, quant_max, axis, seed, /*with_cut=*/false));
}

template <Forward forward>
ValueAndCut stochastic_cut(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                           int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis, const at::Tensor& seed) {
  return run_stochastic<forward>(self, scale, zero_point, quant_min, quant_max, axis, seed, /*with_cut=*/true);
}

ValueAndCut call_stochastic_cut(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                                int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                                const at::Tensor& seed) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_fake_quantize_stochastic_cut", "")
                             .typed<decltype(call_stochastic_cut)>();
  return op.call(self, scale, zero_point, quant_min, quant_max, axis, seed);
}

at::Tensor stochastic_autograd(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                               int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                               const at::Tensor& seed) {
  detail::check_no_grad(kStochasticOp, scale);
  return detail::straight_through(
      kStochasticOp, self,
      [&](const at::Tensor& x) {
        return fake_quantize_stochastic(x, scale, zero_point, quant_min, quant_max, axis, seed);
      },
      [&](const at::Tensor& x) { return call_stochastic_cut(x, scale, zero_point, quant_min, quant_max, axis, seed); });
}

template <Forward forward>
void register_stochastic(torch::Library& m) {
  m.impl("fake_quantize_stochastic", TORCH_FN(stochastic<forward>));
  m.impl("_fake_quantize_stochastic_cut", TORCH_FN(stochastic_cut<forward>));
}

}  // namespace

at::Tensor fake_quantize_stochastic(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                                    int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                                    const at::Tensor& seed) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kStochasticOp, "")
                             .typed<decltype(stochastic<detail::forward_cpu>)>();
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, seed);
}

at::Tensor fake_quantize_stochastic(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                                    int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                                    std::optional<at::Generator> generator) {
  const auto seed = at::randint(std::numeric_limits<int64_t>::max(), {}, std::move(generator), at::kLong);
  return fake_quantize_stochastic(x, scale, zero_point, quant_min, quant_max, axis, seed);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides};
  m.def(
      "fake_quantize_stochastic(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, int? axis, "
      "Tensor seed) -> Tensor",
      tags);
  m.def(
      "_fake_quantize_stochastic_cut(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis, Tensor seed) -> (Tensor, Tensor)",
      tags);
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) { register_stochastic<detail::forward_cpu>(m); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { register_stochastic<detail::forward_meta>(m); }
TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { register_stochastic<detail::forward_composite>(m); }
TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("fake_quantize_stochastic", TORCH_FN(stochastic_autograd)); }
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  m.impl("fake_quantize_stochastic", torch::CppFunction::makeFallthrough());
}

}  // namespace torchslim::quant
