// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>
#include <torch/enum.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>

#include <optional>
#include <ostream>
#include <variant>

namespace torchslim::distill {

/// How the losses of the rows become one: kNone (one per row), kSum, kMean (sum / kept elements, as at::kl_div) or
/// kBatchMean (sum / kept rows).
using Reduction =
    std::variant<torch::enumtype::kNone, torch::enumtype::kSum, torch::enumtype::kMean, torch::enumtype::kBatchMean>;

/// Knowledge distillation: weight · T² · KL(p‖q), with p = softmax(teacher / T) and q = softmax(student / T) over the
/// last dimension. T² keeps the gradient's size when T changes; kBatchMean is the mean over the rows kept, however many
/// dimensions there are before the last.
///   student_logits  (..., C), at least 2 dimensions, float32, bfloat16, float16 or float64; C ≥ 1; −inf is probability 0
///   teacher_logits  the same shape; float64 exactly if the student's are
///   temperature     T > 0
///   mask            bool, the shape without C: true keeps the row. Nothing kept gives 0, with a gradient of zeros
///   weight          a factor of the loss and its gradient
/// Returns float32 (float64 for float64 logits); all but float64 is computed in float32 with sums in float64.
/// Gradient: closed form, weight · T · (q − p), divided as the loss is; made in the same two sweeps over the logits.
/// The teacher gets none. Once-differentiable: double backward is refused.
/// Throws c10::ValueError for shapes and values, c10::TypeError for dtypes.  Hinton et al. 2015, arXiv:1503.02531.
TORCHSLIM_API at::Tensor kd_loss(const at::Tensor& student_logits, const at::Tensor& teacher_logits,
                                 double temperature = 4.0, const Reduction& reduction = torch::kBatchMean,
                                 const std::optional<at::Tensor>& mask = {}, double weight = 1.0);

/// Options of `KDLoss`:
/// ```
/// KDLoss loss(KDLossOptions().temperature(4).ce_weight(0.1).kd_weight(0.9));
/// ```
struct TORCHSLIM_API KDLossOptions {
  /// Softens both distributions; > 0. Default: 4
  TORCH_ARG(double, temperature) = 4.0;
  /// Factor of the cross-entropy with the labels; ≥ 0. Default: 0.1
  TORCH_ARG(double, ce_weight) = 0.1;
  /// Factor of T² · KL(p‖q); ≥ 0. Default: 0.9
  TORCH_ARG(double, kd_weight) = 0.9;
  /// Rows with this label count in neither term. Default: -100
  TORCH_ARG(int64_t, ignore_index) = -100;
  /// Share of the label that is spread evenly over all classes in the cross-entropy; in [0, 1). Default: 0
  TORCH_ARG(double, label_smoothing) = 0.0;
  /// kBatchMean (mean over the rows kept), kSum or kNone; kMean is refused. Default: kBatchMean
  TORCH_ARG(Reduction, reduction) = torch::kBatchMean;
};

namespace functional {

/// ce_weight · CE(student, target) + kd_weight · T² · KL(p‖q) over the same rows; p, q and T as in `distill::kd_loss`.
///   student_logits  (..., C), at least 2 dimensions; float32, bfloat16, float16 or float64
///   teacher_logits  the same shape; gets no gradient
///   target          int64 class indices, the shape without C; `ignore_index` leaves a row out
/// Nothing kept gives 0, with a gradient of zeros. Returns float32 (float64 for float64 logits).
/// Throws c10::ValueError for shapes, labels and options, c10::TypeError for dtypes.
TORCHSLIM_API at::Tensor kd_loss(const at::Tensor& student_logits, const at::Tensor& teacher_logits,
                                 const at::Tensor& target, const KDLossOptions& options = {});

}  // namespace functional

/// `functional::kd_loss` as a module: `loss(student_logits, teacher_logits, target)`. It has no parameters.
class TORCHSLIM_API KDLossImpl : public torch::nn::Cloneable<KDLossImpl> {
 public:
  /// Throws c10::ValueError for options out of their ranges.
  explicit KDLossImpl(KDLossOptions options = {});

  void reset() override {}
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& student_logits, const at::Tensor& teacher_logits, const at::Tensor& target);

  KDLossOptions options;
};
TORCH_MODULE(KDLoss);

}  // namespace torchslim::distill
