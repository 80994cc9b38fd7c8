// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>
#include <torchslim/distill/kd_loss.h>

#include "distill/kd_loss_op.h"

namespace torchslim::distill {
namespace {

struct ReductionName {
  const char* operator()(torch::enumtype::kNone) const { return "none"; }
  const char* operator()(torch::enumtype::kSum) const { return "sum"; }
  const char* operator()(torch::enumtype::kMean) const { return "mean"; }
  const char* operator()(torch::enumtype::kBatchMean) const { return "batchmean"; }
};

template <typename Result>
Result call(const c10::TypedOperatorHandle<KdSignature<Result>>& op, const at::Tensor& student,
            const at::Tensor& teacher, const KdArguments& arguments) {
  return op.call(student, teacher, arguments.temperature, arguments.reduction, arguments.mask, arguments.weight,
                 arguments.target, arguments.ce_weight, arguments.ignore_index, arguments.label_smoothing);
}

template <typename Result>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<KdSignature<Result>>();
}

}  // namespace

Loss call_kd_loss(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments) {
  static const auto op = find<Loss>("torchslim::kd_loss");
  return call(op, student, teacher, arguments);
}

LossAndGradient call_kd_loss_and_gradient(const at::Tensor& student, const at::Tensor& teacher,
                                          const KdArguments& arguments) {
  static const auto op = find<LossAndGradient>("torchslim::_kd_loss_and_gradient");
  return call(op, student, teacher, arguments);
}

at::Tensor kd_loss(const at::Tensor& student_logits, const at::Tensor& teacher_logits, double temperature,
                   const Reduction& reduction, const std::optional<at::Tensor>& mask, double weight) {
  const char* name = std::visit(ReductionName{}, reduction);
  return call_kd_loss(student_logits, teacher_logits,
                      {temperature, name, mask, weight, /*target=*/{}, /*ce_weight=*/0.0, -100, 0.0});
}

at::Tensor functional::kd_loss(const at::Tensor& student_logits, const at::Tensor& teacher_logits,
                               const at::Tensor& target, const KDLossOptions& options) {
  const char* name = std::visit(ReductionName{}, options.reduction());
  const std::optional<at::Tensor> no_mask, labels(target);
  return call_kd_loss(student_logits, teacher_logits,
                      {options.temperature(), name, no_mask, options.kd_weight(), labels, options.ce_weight(),
                       options.ignore_index(), options.label_smoothing()});
}

KDLossImpl::KDLossImpl(KDLossOptions options) : options(std::move(options)) {
  const KDLossOptions& o = this->options;
  constexpr const char* kClass = "torchslim::distill::KDLoss: ";
  TORCH_CHECK_VALUE(o.temperature() > 0.0 && std::isfinite(o.temperature()), kClass,
                    "temperature must be > 0 and finite, got ", o.temperature());
  TORCH_CHECK_VALUE(o.ce_weight() >= 0.0 && std::isfinite(o.ce_weight()), kClass,
                    "ce_weight must be >= 0 and finite, got ", o.ce_weight());
  TORCH_CHECK_VALUE(o.kd_weight() >= 0.0 && std::isfinite(o.kd_weight()), kClass,
                    "kd_weight must be >= 0 and finite, got ", o.kd_weight());
  TORCH_CHECK_VALUE(o.label_smoothing() >= 0.0 && o.label_smoothing() < 1.0, kClass,
                    "label_smoothing must be in [0, 1), got ", o.label_smoothing());
  TORCH_CHECK_VALUE(!std::holds_alternative<torch::enumtype::kMean>(o.reduction()), kClass,
                    "reduction must be `none`, `sum` or `batchmean`, got `mean`; the mean over rows is `batchmean`");
}

void KDLossImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::distill::KDLoss(temperature=" << options.temperature() << ", ce_weight=" << options.ce_weight()
         << ", kd_weight=" << options.kd_weight() << ", ignore_index=" << options.ignore_index()
         << ", label_smoothing=" << options.label_smoothing()
         << ", reduction=" << std::visit(ReductionName{}, options.reduction()) << ")";
}

at::Tensor KDLossImpl::forward(const at::Tensor& student_logits, const at::Tensor& teacher_logits,
                               const at::Tensor& target) {
  return functional::kd_loss(student_logits, teacher_logits, target, options);
}

}  // namespace torchslim::distill

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "kd_loss(Tensor student_logits, Tensor teacher_logits, float temperature, str reduction=\"batchmean\", "
      "Tensor? mask=None, float weight=1.0, Tensor? target=None, float ce_weight=0.0, int ignore_index=-100, "
      "float label_smoothing=0.0) -> Tensor",
      tags);
  // The gradient with respect to the student, for a loss gradient of 1 (float16: in units, see kd_loss_op.h).
  m.def(
      "_kd_loss_and_gradient(Tensor student_logits, Tensor teacher_logits, float temperature, str reduction, "
      "Tensor? mask, float weight, Tensor? target, float ce_weight, int ignore_index, float label_smoothing) -> "
      "(Tensor loss, Tensor gradient)",
      tags);
}

// The maths is in float whatever the logits are: autocast has nothing to cast.
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) { m.impl("kd_loss", torch::CppFunction::makeFallthrough()); }
