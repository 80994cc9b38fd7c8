// SPDX-License-Identifier: BSD-3-Clause
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>
#include <torchslim/quant/observe_fake_quantize.h>

#include "quant/fake_quantize_autograd.h"

namespace torchslim::quant {
namespace {

constexpr const char* kObserveName = "torchslim::observe_fake_quantize";

std::tuple<at::Tensor, at::Tensor> call_observe_cut(const at::Tensor& self, const at::Tensor& min_val,
                                                    const at::Tensor& max_val, const at::Tensor& scale,
                                                    const at::Tensor& zero_point, double averaging_constant,
                                                    int64_t quant_min, int64_t quant_max, bool symmetric,
                                                    std::optional<double> clamp_min, std::optional<double> clamp_max,
                                                    bool keep_extremes) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_observe_fake_quantize_cut", "")
                             .typed<decltype(call_observe_cut)>();
  return op.call(self, min_val, max_val, scale, zero_point, averaging_constant, quant_min, quant_max, symmetric,
                 clamp_min, clamp_max, keep_extremes);
}

// Tells autograd that an operator below it has written to these.
void mark_changed(std::initializer_list<at::Tensor> tensors) {
  for (const auto& tensor : tensors) {
    torch::autograd::impl::bump_version(tensor);
  }
}

at::Tensor observe_autograd(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                            const at::Tensor& scale, const at::Tensor& zero_point, double averaging_constant,
                            int64_t quant_min, int64_t quant_max, bool symmetric, std::optional<double> clamp_min,
                            std::optional<double> clamp_max, bool keep_extremes) {
  auto result = detail::straight_through(
      kObserveName, self,
      [&](const at::Tensor& x) {
        return observe_fake_quantize(x, min_val, max_val, scale, zero_point, averaging_constant, quant_min, quant_max,
                                     symmetric, clamp_min, clamp_max, keep_extremes);
      },
      [&](const at::Tensor& x) {
        return call_observe_cut(x, min_val, max_val, scale, zero_point, averaging_constant, quant_min, quant_max,
                                symmetric, clamp_min, clamp_max, keep_extremes);
      });
  mark_changed({min_val, max_val, scale, zero_point});
  return result;
}

std::tuple<at::Tensor, at::Tensor> call_observe_channels_cut(const at::Tensor& self, const at::Tensor& min_val,
                                                             const at::Tensor& max_val, const at::Tensor& scale,
                                                             const at::Tensor& zero_point, int64_t axis,
                                                             double averaging_constant, int64_t quant_min,
                                                             int64_t quant_max, bool symmetric, bool keep_extremes) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_observe_fake_quantize_cut", "channels")
                             .typed<decltype(call_observe_channels_cut)>();
  return op.call(self, min_val, max_val, scale, zero_point, axis, averaging_constant, quant_min, quant_max, symmetric,
                 keep_extremes);
}

at::Tensor observe_fake_quantize_channels_autograd(const at::Tensor& self, const at::Tensor& min_val,
                                                   const at::Tensor& max_val, const at::Tensor& scale,
                                                   const at::Tensor& zero_point, int64_t axis,
                                                   double averaging_constant, int64_t quant_min, int64_t quant_max,
                                                   bool symmetric, bool keep_extremes) {
  auto result = detail::straight_through(
      kObserveName, self,
      [&](const at::Tensor& x) {
        return observe_fake_quantize(x, min_val, max_val, scale, zero_point, axis, averaging_constant, quant_min,
                                     quant_max, symmetric, keep_extremes);
      },
      [&](const at::Tensor& x) {
        return call_observe_channels_cut(x, min_val, max_val, scale, zero_point, axis, averaging_constant, quant_min,
                                         quant_max, symmetric, keep_extremes);
      });
  mark_changed({min_val, max_val, scale, zero_point});
  return result;
}

void observe_channels_autograd(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                               const at::Tensor& scale, const at::Tensor& zero_point, int64_t axis,
                               double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
                               bool keep_extremes) {
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    observe_channels(self, min_val, max_val, scale, zero_point, axis, averaging_constant, quant_min, quant_max,
                     symmetric, keep_extremes);
  }
  mark_changed({min_val, max_val, scale, zero_point});
}

}  // namespace

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) {
  m.impl("observe_fake_quantize", TORCH_FN(observe_autograd));
  m.impl("observe_fake_quantize.channels", TORCH_FN(observe_fake_quantize_channels_autograd));
  m.impl("observe_channels", TORCH_FN(observe_channels_autograd));
}

TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  m.impl("observe_fake_quantize", torch::CppFunction::makeFallthrough());
  m.impl("observe_fake_quantize.channels", torch::CppFunction::makeFallthrough());
  m.impl("observe_channels", torch::CppFunction::makeFallthrough());
}

}  // namespace torchslim::quant
