// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torchslim/quant/round_average.h>

#include "core/once_differentiable.h"
#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr const char* kRoundAverage = "torchslim::round_average";

/// Below autograd: ATen ops, for every device.
at::Tensor round_average_composite(const at::Tensor& average, const at::Tensor& scale, int64_t count) {
  TORCH_CHECK_TYPE(average.is_floating_point(), kRoundAverage, ": average must hold floats, got ",
                   average.scalar_type());
  TORCH_CHECK_VALUE(scale.sym_numel() == 1, kRoundAverage, ": scale must be one number, got shape ", scale.sym_sizes());
  TORCH_CHECK_VALUE(count > 0, kRoundAverage, ": count must be > 0, got ", count);
  detail::check_device(kRoundAverage, "scale", scale, average.device());
  const at::Tensor s = scale.reshape({});
  const auto size = static_cast<float>(count);
  const at::Tensor sums = (average.to(at::kFloat) * (size / s)).round_();
  return sums.mul_(s / (s * size)).round_().mul_(s).to(average.scalar_type());
}

/// Straight-through: the identity for the average.
struct RoundAverage : torch::autograd::Function<RoundAverage> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& average, const at::Tensor& scale,
                            int64_t count) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return round_average(average, scale, count);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list gradients) {
    return {core::once_differentiable(gradients[0], kRoundAverage), {}, {}};
  }
};

at::Tensor round_average_autograd(const at::Tensor& average, const at::Tensor& scale, int64_t count) {
  return RoundAverage::apply(average, scale, count);
}

}  // namespace

at::Tensor round_average(const at::Tensor& average, const at::Tensor& scale, int64_t count) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::round_average", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t)>();
  return op.call(average, scale, count);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) { m.def("round_average(Tensor average, Tensor scale, int count) -> Tensor"); }

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { m.impl("round_average", round_average_composite); }

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("round_average", round_average_autograd); }

}  // namespace torchslim::quant
