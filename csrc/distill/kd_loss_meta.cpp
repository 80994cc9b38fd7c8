// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "distill/kd_loss_op.h"

namespace torchslim::distill {
namespace {

constexpr const char* kName = "torchslim::kd_loss: ";

void check_type(const at::Tensor& logits, const char* argument) {
  const auto type = logits.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, kName,
                   argument, " must be float32, float64, bfloat16 or float16, got ", type);
}

void check_logits(const at::Tensor& student, const at::Tensor& teacher) {
  check_type(student, "student_logits");
  check_type(teacher, "teacher_logits");
  TORCH_CHECK_TYPE((student.scalar_type() == at::kDouble) == (teacher.scalar_type() == at::kDouble), kName,
                   "student_logits and teacher_logits must both be float64 or neither, got ", student.scalar_type(),
                   " and ", teacher.scalar_type(), "; cast one of them");
  TORCH_CHECK_VALUE(student.device() == teacher.device(), kName,
                    "student_logits and teacher_logits must be on one device, got ", student.device(), " and ",
                    teacher.device());
  const auto shape = student.sym_sizes();
  TORCH_CHECK_VALUE(shape.size() >= 2, kName, "student_logits must be (rows, classes) or (..., classes), got shape ",
                    shape, "; add a dimension to a single row");
  TORCH_CHECK_VALUE(shape.equals(teacher.sym_sizes()), kName,
                    "student_logits and teacher_logits must have the same shape, got ", shape, " and ",
                    teacher.sym_sizes(),
                    "; where the classes differ in number, cut both to the common ones or fill up with -inf");
  TORCH_CHECK_VALUE(shape.back() > 0, kName, "the last dimension holds the classes and must not be empty, got shape ",
                    shape);
}

/// `rows` has one element a row: the mask or the target.
void check_rows(const at::Tensor& student, const std::optional<at::Tensor>& rows, at::ScalarType type,
                const char* argument) {
  if (!rows) {
    return;
  }
  TORCH_CHECK_VALUE(rows->defined(), kName, argument, " is an undefined tensor");
  TORCH_CHECK_TYPE(rows->scalar_type() == type, kName, argument, " must be ", type, ", got ", rows->scalar_type());
  const auto shape = student.sym_sizes().slice(0, student.dim() - 1);
  TORCH_CHECK_VALUE(rows->sym_sizes().equals(shape), kName, argument,
                    " must have the logits' shape without the classes, ", shape, ", got ", rows->sym_sizes());
  TORCH_CHECK_VALUE(rows->device() == student.device(), kName, argument, " must be on the logits' device, ",
                    student.device(), ", got ", rows->device());
}

void check_numbers(const KdArguments& arguments) {
  TORCH_CHECK_VALUE(arguments.temperature > 0.0 && std::isfinite(arguments.temperature), kName,
                    "temperature must be > 0 and finite, got ", arguments.temperature);
  TORCH_CHECK_VALUE(std::isfinite(arguments.weight), kName, "weight must be finite, got ", arguments.weight);
  TORCH_CHECK_VALUE(std::isfinite(arguments.ce_weight), kName, "ce_weight must be finite, got ", arguments.ce_weight);
  TORCH_CHECK_VALUE(arguments.target || arguments.ce_weight == 0.0, kName, "ce_weight ", arguments.ce_weight,
                    " needs a target");
  TORCH_CHECK_VALUE(arguments.label_smoothing >= 0.0 && arguments.label_smoothing < 1.0, kName,
                    "label_smoothing must be in [0, 1), got ", arguments.label_smoothing);
  const auto reduction = arguments.reduction;
  TORCH_CHECK_VALUE(reduction == "none" || reduction == "sum" || reduction == "mean" || reduction == "batchmean", kName,
                    "reduction must be `none`, `sum`, `mean` or `batchmean`, got `", reduction, "`");
  TORCH_CHECK_VALUE(reduction != "mean" || !arguments.target, kName,
                    "with a target, reduction must be `none`, `sum` or `batchmean`, got `mean`; the mean over rows is "
                    "`batchmean`");
}

at::Tensor kd_loss_meta(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments) {
  check_kd_loss(student, teacher, arguments);
  const auto options = student.options().dtype(loss_type(student));
  return arguments.reduction == "none" ? at::empty_symint(student.sym_sizes().slice(0, student.dim() - 1), options)
                                       : at::empty({}, options);
}

LossAndGradient kd_loss_and_gradient_meta(const at::Tensor& student, const at::Tensor& teacher,
                                          const KdArguments& arguments) {
  return {kd_loss_meta(student, teacher, arguments), at::empty_symint(student.sym_sizes(), student.options())};
}

}  // namespace

void check_kd_loss(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments) {
  check_logits(student, teacher);
  check_rows(student, arguments.mask, at::kBool, "mask");
  check_rows(student, arguments.target, at::kLong, "target");
  check_numbers(arguments);
}

}  // namespace torchslim::distill

TORCH_LIBRARY_IMPL(torchslim, Meta, m) {
  using namespace torchslim::distill;
  m.impl("kd_loss", &as_kernel<Loss, kd_loss_meta>);
  m.impl("_kd_loss_and_gradient", &as_kernel<LossAndGradient, kd_loss_and_gradient_meta>);
}
