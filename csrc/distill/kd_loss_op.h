// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <optional>
#include <string_view>
#include <tuple>

// What the files of torchslim::kd_loss share.
namespace torchslim::distill {

/// The op's arguments beside the logits.
struct KdArguments {
  double temperature;
  std::string_view reduction;               // none, sum, mean or batchmean
  const std::optional<at::Tensor>& mask;    // true keeps the row
  double weight;                            // of T² · KL
  const std::optional<at::Tensor>& target;  // class indices for the cross-entropy
  double ce_weight;
  int64_t ignore_index;
  double label_smoothing;
};

/// The loss and, from `_kd_loss_and_gradient`, its gradient with respect to the student, divided by `gradient_unit`.
using Loss = at::Tensor;
using LossAndGradient = std::tuple<at::Tensor, at::Tensor>;

/// The schema's signature, with the arguments spelt out as the dispatcher wants them.
template <typename Result>
using KdSignature = Result(const at::Tensor& student, const at::Tensor& teacher, double temperature,
                           std::string_view reduction, const std::optional<at::Tensor>& mask, double weight,
                           const std::optional<at::Tensor>& target, double ce_weight, int64_t ignore_index,
                           double label_smoothing);

/// Registers a function of (student, teacher, arguments) as a kernel: m.impl("kd_loss", &as_kernel<Loss, kd_loss_cpu>).
template <typename Result, Result (*kFunction)(const at::Tensor&, const at::Tensor&, const KdArguments&)>
Result as_kernel(const at::Tensor& student, const at::Tensor& teacher, double temperature, std::string_view reduction,
                 const std::optional<at::Tensor>& mask, double weight, const std::optional<at::Tensor>& target,
                 double ce_weight, int64_t ignore_index, double label_smoothing) {
  return kFunction(student, teacher,
                   {temperature, reduction, mask, weight, target, ce_weight, ignore_index, label_smoothing});
}

/// Calls the op `torchslim::kd_loss` or `torchslim::_kd_loss_and_gradient`.
Loss call_kd_loss(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments);
LossAndGradient call_kd_loss_and_gradient(const at::Tensor& student, const at::Tensor& teacher,
                                          const KdArguments& arguments);

/// Throws c10::ValueError or c10::TypeError, naming the argument, what was expected and what came.
void check_kd_loss(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments);

/// The rows that count, as a bool tensor: not masked, and with a label that is not `ignore_index`. Empty: all of them.
std::optional<at::Tensor> kept_rows(const KdArguments& arguments);

/// The same numbers from ATen's ops, for devices without a kernel of ours. Without `want_gradient` it is undefined.
LossAndGradient kd_loss_composite(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments,
                                  bool want_gradient);

/// float16 cannot hold small gradients before a loss scaler has multiplied them, so there the gradient is kept divided
/// by this unit, which makes its largest possible element 2^15 or less; 1 for every other type.
inline double gradient_unit(at::ScalarType type, const KdArguments& arguments) {
  const double largest = std::abs(arguments.weight) * arguments.temperature + std::abs(arguments.ce_weight);
  return type == at::kHalf && largest > 0.0 ? largest / 32768.0 : 1.0;
}

/// The type of the loss.
inline at::ScalarType loss_type(const at::Tensor& student) {
  return student.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace torchslim::distill
