// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torchslim/quant/fake_quantize_weight.h>

#include "core/once_differentiable.h"

namespace torchslim::quant {
namespace {

/// Straight-through: no weight lies outside a grid that is made for it, so the gradient passes
/// whole.
struct FakeQuantizeWeight : torch::autograd::Function<FakeQuantizeWeight> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& weight,
                                                int64_t bits) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [rounded, scale] = fake_quantize_weight(weight, bits);
    ctx->mark_non_differentiable({scale});
    return {rounded, scale};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list gradients) {
    return {core::once_differentiable(gradients[0], "torchslim::fake_quantize_weight"), {}};
  }
};

std::tuple<at::Tensor, at::Tensor> fake_quantize_weight_autograd(const at::Tensor& weight, int64_t bits) {
  const auto results = FakeQuantizeWeight::apply(weight, bits);
  return {results[0], results[1]};
}

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) { m.impl("fake_quantize_weight", fake_quantize_weight_autograd); }

}  // namespace
}  // namespace torchslim::quant
