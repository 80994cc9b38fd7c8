// SPDX-License-Identifier: BSD-3-Clause
#include "quant/fake_quantize_autograd.h"

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/library.h>
#include <torchslim/quant/fake_quantize.h>

namespace torchslim::quant {
namespace detail {
at::Tensor call_backward(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_fake_quantize_backward", "")
                             .typed<decltype(call_backward)>();
  return op.call(grad, cut, stride);
}

void check_no_grad(const char* op, const at::Tensor& scale) {
  TORCH_CHECK_VALUE(!(at::GradMode::is_enabled() && scale.requires_grad()), op,
                    ": scale requires grad, but the straight-through gradient has none for it; detach it");
}

namespace {

c10::SymDimVector plain_strides(const at::Tensor& like) {
  c10::SymDimVector stride(like.dim());
  c10::SymInt step = 1;
  for (int64_t dim = like.dim() - 1; dim >= 0; --dim) {
    stride[dim] = step;
    step = step * like.sym_size(dim).max(1);
  }
  return stride;
}

}  // namespace

c10::intrusive_ptr<ClippedStraightThrough> clipped_straight_through(const char* op, const at::Tensor& self) {
  TORCH_CHECK_VALUE(!torch::autograd::isFwGradDefined(self), op,
                    ": has no forward-mode derivative; use reverse mode (backward), or detach its input");
  auto node = c10::make_intrusive<ClippedStraightThrough>(op);
  node->set_next_edges(torch::autograd::collect_next_edges(self));
  return node;
}

void ClippedStraightThrough::attach(const at::Tensor& value, const at::Tensor& cut) {
  cut_ = torch::autograd::SavedVariable(cut, /*is_output=*/false);
  follows_shape_ = !value.unsafeGetTensorImpl()->has_symbolic_sizes_strides() && value.is_contiguous();
  if (!follows_shape_) {
    const auto strides = value.sym_strides();
    stride_.assign(strides.begin(), strides.end());
  }
  torch::autograd::set_history(value, getptr());
}

torch::autograd::variable_list ClippedStraightThrough::apply(torch::autograd::variable_list&& grads) {
  if (!grads[0].defined()) {
    return {at::Tensor()};
  }
  at::Tensor gradient;
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    gradient = call_backward(grads[0], cut_.unpack(), follows_shape_ ? plain_strides(grads[0]) : stride_);
  }
  return {core::once_differentiable(gradient, op_)};
}

}  // namespace detail

namespace {

using detail::check_no_grad;

using ValueAndCut = std::tuple<at::Tensor, at::Tensor>;

ValueAndCut call_cut(const at::Tensor& self, double scale, int64_t zero_point, int64_t quant_min, int64_t quant_max) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("torchslim::_fake_quantize_cut", "").typed<decltype(call_cut)>();
  return op.call(self, scale, zero_point, quant_min, quant_max);
}

ValueAndCut call_cut_tensors(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                             int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                             std::optional<double> clamp_min, std::optional<double> clamp_max) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("torchslim::_fake_quantize_cut", "tensor_qparams")
                             .typed<decltype(call_cut_tensors)>();
  return op.call(self, scale, zero_point, quant_min, quant_max, axis, clamp_min, clamp_max);
}

constexpr const char* kFakeQuantize = "torchslim::fake_quantize";
constexpr const char* kClampFakeQuantize = "torchslim::clamp_fake_quantize";

at::Tensor per_number_autograd(const at::Tensor& self, double scale, int64_t zero_point, int64_t quant_min,
                               int64_t quant_max) {
  return detail::straight_through(
      kFakeQuantize, self,
      [&](const at::Tensor& x) { return fake_quantize(x, scale, zero_point, quant_min, quant_max); },
      [&](const at::Tensor& x) { return call_cut(x, scale, zero_point, quant_min, quant_max); });
}

at::Tensor per_tensor_autograd(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                               int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis) {
  check_no_grad(kFakeQuantize, scale);
  return detail::straight_through(
      kFakeQuantize, self,
      [&](const at::Tensor& x) { return fake_quantize(x, scale, zero_point, quant_min, quant_max, axis); },
      [&](const at::Tensor& x) {
        return call_cut_tensors(x, scale, zero_point, quant_min, quant_max, axis, std::nullopt, std::nullopt);
      });
}

at::Tensor clamped_autograd(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point,
                            int64_t quant_min, int64_t quant_max, std::optional<double> clamp_min,
                            std::optional<double> clamp_max) {
  check_no_grad(kClampFakeQuantize, scale);
  return detail::straight_through(
      kClampFakeQuantize, self,
      [&](const at::Tensor& x) {
        return clamp_fake_quantize(x, scale, zero_point, quant_min, quant_max, clamp_min, clamp_max);
      },
      [&](const at::Tensor& x) {
        return call_cut_tensors(x, scale, zero_point, quant_min, quant_max, std::nullopt, clamp_min, clamp_max);
      });
}

}  // namespace

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) {
  m.impl("fake_quantize", TORCH_FN(per_number_autograd));
  m.impl("fake_quantize.tensor_qparams", TORCH_FN(per_tensor_autograd));
  m.impl("clamp_fake_quantize", TORCH_FN(clamped_autograd));
}

// Under autocast the ops keep their input's type: they compute in float32 anyway.
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  m.impl("fake_quantize", torch::CppFunction::makeFallthrough());
  m.impl("fake_quantize.tensor_qparams", torch::CppFunction::makeFallthrough());
  m.impl("clamp_fake_quantize", torch::CppFunction::makeFallthrough());
}

}  // namespace torchslim::quant
