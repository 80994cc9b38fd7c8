// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "distill/kd_loss_op.h"

namespace torchslim::distill {
namespace {

/// What the sum over rows is divided by: a tensor, since where it depends on the mask no device should have to wait.
at::Tensor divisor(const at::Tensor& rows, const std::optional<at::Tensor>& kept, int64_t classes,
                   const KdArguments& arguments) {
  if (arguments.reduction == "none" || arguments.reduction == "sum") {
    return at::scalar_tensor(1.0, rows.options());
  }
  const at::Tensor count =
      kept ? kept->sum().to(rows.scalar_type()) : at::scalar_tensor(static_cast<double>(rows.numel()), rows.options());
  return count.clamp_min(1) * (arguments.reduction == "mean" ? classes : 1);
}

/// A row's losses, and their gradient with respect to the student's logits, before rows are left out and divided.
struct Term {
  at::Tensor rows, gradient;
};

Term soft_term(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments) {
  const at::Tensor log_q = at::log_softmax(student / arguments.temperature, -1);
  const at::Tensor log_p = at::log_softmax(teacher / arguments.temperature, -1);
  const at::Tensor p = log_p.exp();
  // A class the teacher gives nothing adds nothing, whatever the student's logit, −inf included.
  const at::Tensor products = at::where(p == 0, at::zeros_like(p), p * (log_p - log_q));
  const double squared = arguments.temperature * arguments.temperature;
  return {products.sum(-1).clamp_min(0) * (arguments.weight * squared),
          (log_q.exp() - p) * (arguments.weight * arguments.temperature)};
}

Term hard_term(const at::Tensor& student, const at::Tensor& kept, const KdArguments& arguments) {
  const double smoothing = arguments.label_smoothing;
  const at::Tensor log_q = at::log_softmax(student, -1);
  // A left-out row's label may be anything: 0 stands for it, and the row is dropped afterwards.
  const at::Tensor index = at::where(kept, *arguments.target, at::zeros_like(*arguments.target)).unsqueeze(-1);
  at::Tensor rows = log_q.gather(-1, index).squeeze(-1) * -(1.0 - smoothing);
  at::Tensor gradient = log_q.exp();
  if (smoothing > 0.0) {
    rows = rows - log_q.mean(-1) * smoothing;
    gradient = gradient - smoothing / static_cast<double>(student.size(-1));
  }
  gradient.scatter_add_(-1, index, at::zeros_like(index, student.options()) - (1.0 - smoothing));
  return {rows * arguments.ce_weight, gradient * arguments.ce_weight};
}

Term both_terms(const at::Tensor& student, const at::Tensor& teacher, const std::optional<at::Tensor>& kept,
                const KdArguments& arguments) {
  Term sum = soft_term(student, teacher, arguments);
  if (arguments.weight == 0.0) {  // absent, even where it would be infinite
    sum.rows = at::zeros_like(sum.rows);
  }
  if (arguments.target && arguments.ce_weight != 0.0) {
    const Term hard = hard_term(student, *kept, arguments);
    sum = {sum.rows + hard.rows, sum.gradient + hard.gradient};
  }
  if (kept) {
    sum = {at::where(*kept, sum.rows, at::zeros_like(sum.rows)),
           at::where(kept->unsqueeze(-1), sum.gradient, at::zeros_like(sum.gradient))};
  }
  return sum;
}

Loss kd_loss_on_other_devices(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments) {
  return std::get<0>(kd_loss_composite(student, teacher, arguments, false));
}

LossAndGradient kd_loss_and_gradient_on_other_devices(const at::Tensor& student, const at::Tensor& teacher,
                                                      const KdArguments& arguments) {
  return kd_loss_composite(student, teacher, arguments, true);
}

}  // namespace

std::optional<at::Tensor> kept_rows(const KdArguments& arguments) {
  if (!arguments.target) {
    return arguments.mask ? std::optional(arguments.mask->contiguous()) : std::nullopt;
  }
  const at::Tensor labelled = *arguments.target != arguments.ignore_index;
  return (arguments.mask ? labelled & *arguments.mask : labelled).contiguous();
}

LossAndGradient kd_loss_composite(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments,
                                  bool want_gradient) {
  check_kd_loss(student, teacher, arguments);
  const auto type = loss_type(student);
  const auto kept = kept_rows(arguments);
  const Term term = both_terms(student.to(type), teacher.to(type), kept, arguments);
  const at::Tensor count = divisor(term.rows, kept, student.size(-1), arguments);
  const at::Tensor loss = arguments.reduction == "none" ? term.rows : term.rows.sum() / count;
  if (!want_gradient) {
    return {loss, at::Tensor()};
  }
  const double unit = gradient_unit(student.scalar_type(), arguments);
  return {loss, (term.gradient / (count * unit)).to(student.scalar_type())};
}

}  // namespace torchslim::distill

// Explicit, not Implicit: the op stays one node in a captured graph.
TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  using namespace torchslim::distill;
  m.impl("kd_loss", &as_kernel<Loss, kd_loss_on_other_devices>);
  m.impl("_kd_loss_and_gradient", &as_kernel<LossAndGradient, kd_loss_and_gradient_on_other_devices>);
}
