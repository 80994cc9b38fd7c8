// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include "core/once_differentiable.h"
#include "distill/kd_loss_op.h"

namespace torchslim::distill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// gradient · factor. In an ordinary backward the saved gradient is used up: it is returned as it is, or multiplied in
/// place, since a second tensor of the logits' size costs more than all the rest.
at::Tensor used_up(at::Tensor gradient, const at::Tensor& factor) {
  const bool may_overwrite = !at::GradMode::is_enabled() && factor.is_cpu() && gradient.is_cpu() &&
                             !at::areAnyTensorSubclassLike({gradient, factor}) &&
                             !torch::autograd::get_current_graph_task_keep_graph();
  if (!may_overwrite) {
    return (gradient * factor).to(gradient.scalar_type());
  }
  const bool is_one = factor.dim() == 0 && factor.item<double>() == 1.0;
  return is_one ? gradient : gradient.mul_(factor);
}

struct KdLossFunction : torch::autograd::Function<KdLossFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& student, const at::Tensor& teacher,
                            const KdArguments& arguments) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [loss, gradient] = call_kd_loss_and_gradient(student, teacher, arguments);
    ctx->save_for_backward({gradient});
    ctx->saved_data["unit"] = gradient_unit(student.scalar_type(), arguments);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& of_loss) {
    const double unit = ctx->saved_data["unit"].toDouble();
    at::Tensor factor = unit == 1.0 ? of_loss[0] : of_loss[0] * unit;
    factor = factor.dim() == 0 ? factor : factor.unsqueeze(-1);
    const at::Tensor gradient = used_up(ctx->get_saved_variables()[0], factor);
    return {core::once_differentiable(gradient, "torchslim::kd_loss"), {}, {}};
  }
};

at::Tensor kd_loss_autograd(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments) {
  if (at::GradMode::is_enabled() && student.requires_grad()) {
    return KdLossFunction::apply(student, teacher.detach(), arguments);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return call_kd_loss(student, teacher, arguments);
}

}  // namespace
}  // namespace torchslim::distill

TORCH_LIBRARY_IMPL(torchslim, Autograd, m) {
  using namespace torchslim::distill;
  m.impl("kd_loss", &as_kernel<Loss, kd_loss_autograd>);
}
