// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "core/composite.h"
#include "core/large_outputs.h"
#include "distill/kd_loss_kernel.h"
#include "distill/kd_loss_op.h"

namespace torchslim::distill {
namespace {

/// Logits as rows: no copy as long as a row itself has no gaps, so slices of a longer sequence or a wider vocabulary
/// are read where they are.
class Rows {
 public:
  explicit Rows(const at::Tensor& logits)
      : logits_(logits.stride(-1) == 1 || logits.size(-1) == 1 ? logits : logits.contiguous()), offsets_{0} {
    for (int64_t dim = 0; dim + 1 < logits_.dim(); ++dim) {
      append_dimension(logits_.size(dim), logits_.stride(dim));
    }
  }

  int64_t size() const { return static_cast<int64_t>(offsets_.size()); }

  const void* operator[](int64_t row) const {
    return static_cast<const char*>(logits_.const_data_ptr()) + offsets_[row] * logits_.element_size();
  }

 private:
  void append_dimension(int64_t size, int64_t stride) {
    std::vector<int64_t> longer;
    longer.reserve(offsets_.size() * size);
    for (const int64_t offset : offsets_) {
      for (int64_t i = 0; i < size; ++i) {
        longer.push_back(offset + i * stride);
      }
    }
    offsets_ = std::move(longer);
  }

  at::Tensor logits_;
  std::vector<int64_t> offsets_;  // in elements
};

LogitType logit_type(at::ScalarType type) {
  return type == at::kBFloat16 ? LogitType::kBFloat16 : type == at::kHalf ? LogitType::kHalf : LogitType::kFloat;
}

double max_of(const double* x, int64_t count) {
  double max = -INFINITY;
  for (int64_t i = 0; i < count; ++i) {
    max = x[i] > max ? x[i] : max;
  }
  return max;
}

double sum_of_exp(const double* x, int64_t count, double max, double temperature) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    sum += std::exp((x[i] - max) / temperature);
  }
  return sum;
}

/// What `kd_row` does, for float64: plain, since it serves gradcheck rather than training.
KdRowLoss kd_row_double(const KdRow& row) {
  const auto* s = static_cast<const double*>(row.student.data);
  const auto* t = static_cast<const double*>(row.teacher.data);
  auto* gradient = static_cast<double*>(row.gradient.data);
  const bool hard = row.label.index >= 0;
  const double s_max = max_of(s, row.classes), t_max = max_of(t, row.classes);
  const double s_sum = sum_of_exp(s, row.classes, s_max, row.temperature);
  const double t_sum = sum_of_exp(t, row.classes, t_max, row.temperature);
  const double hard_sum = hard ? sum_of_exp(s, row.classes, s_max, 1.0) : 1.0;
  KdRowLoss loss{std::log(s_sum / t_sum), 0.0};
  for (int64_t i = 0; i < row.classes; ++i) {
    const double ys = (s[i] - s_max) / row.temperature, yt = (t[i] - t_max) / row.temperature;
    const double q = std::exp(ys) / s_sum, p = std::exp(yt) / t_sum;
    const double share = row.label.smoothing / static_cast<double>(row.classes) +
                         (i == row.label.index ? 1.0 - row.label.smoothing : 0.0);
    loss.divergence += p == 0.0 ? 0.0 : p * (yt - ys);
    loss.cross_entropy += hard && share > 0.0 ? share * (std::log(hard_sum) + s_max - s[i]) : 0.0;
    if (gradient != nullptr) {
      gradient[i] = row.gradient.soft * (q - p);
      gradient[i] += hard ? row.gradient.hard * (std::exp(s[i] - s_max) / hard_sum - share) : 0.0;
    }
  }
  loss.divergence = loss.divergence < 0.0 ? 0.0 : loss.divergence;
  return loss;
}

/// All rows of one call; each thread works on rows of its own, so the bits do not depend on the number of threads.
struct KdJob {
  Rows student, teacher;
  KdRow row;  // what all rows share
  bool is_double;
  int64_t gradient_row_bytes;
  double kd_factor, ce_factor;
  at::Tensor kept, target;     // contiguous; undefined: all rows, no cross-entropy
  char* gradient;              // null: not wanted
  std::vector<double> losses;  // one a row

  void run(int64_t begin, int64_t end) {
    const int64_t floats = gradient != nullptr && !is_double ? kd_scratch_size(row.classes) : 0;
    const auto scratch = std::make_unique_for_overwrite<float[]>(floats);
    for (int64_t i = begin; i < end; ++i) {
      losses[i] = run_row(i, scratch.get());
    }
  }

 private:
  double run_row(int64_t i, float* scratch) const {
    char* to = gradient == nullptr ? nullptr : gradient + i * gradient_row_bytes;
    if (kept.defined() && !kept.const_data_ptr<bool>()[i]) {
      if (to != nullptr) {
        std::fill_n(to, gradient_row_bytes, char{0});
      }
      return 0.0;
    }
    KdRow one = row;
    one.student.data = student[i];
    one.teacher.data = teacher[i];
    one.gradient.data = to;
    // A term of weight 0 is absent, even where it would be infinite.
    one.label.index = ce_factor != 0.0 ? target.const_data_ptr<int64_t>()[i] : -1;
    const KdRowLoss loss = is_double ? kd_row_double(one) : TORCHSLIM_CALL_KERNEL(kd_row, one, scratch);
    return (kd_factor == 0.0 ? 0.0 : kd_factor * loss.divergence) + ce_factor * loss.cross_entropy;
  }
};

void check_labels(const at::Tensor& target, const at::Tensor& kept, int64_t classes) {
  const auto* label = target.const_data_ptr<int64_t>();
  const bool* counts = kept.const_data_ptr<bool>();
  for (int64_t i = 0; i < target.numel(); ++i) {
    TORCH_CHECK_VALUE(!counts[i] || (label[i] >= 0 && label[i] < classes), "torchslim::kd_loss: target[", i,
                      "] (flattened) must be in [0, ", classes, ") or ignore_index, got ", label[i]);
  }
}

at::Tensor reduced(const at::Tensor& student, const std::vector<double>& losses, double divisor, bool none) {
  const auto options = student.options().dtype(loss_type(student));
  if (!none) {
    double sum = 0.0;
    for (const double loss : losses) {
      sum += loss;
    }
    return at::empty({}, options).fill_(sum / divisor);
  }
  at::Tensor result = at::empty(student.sizes().slice(0, student.dim() - 1), options);
  if (result.scalar_type() == at::kDouble) {
    std::copy(losses.begin(), losses.end(), result.mutable_data_ptr<double>());
  } else {
    std::transform(losses.begin(), losses.end(), result.mutable_data_ptr<float>(),
                   [](double loss) { return static_cast<float>(loss); });
  }
  return result;
}

double divisor_of(const KdArguments& arguments, const at::Tensor& kept, int64_t rows, int64_t classes) {
  if (arguments.reduction == "none" || arguments.reduction == "sum") {
    return 1.0;
  }
  int64_t count = rows;
  if (kept.defined()) {
    const bool* begin = kept.const_data_ptr<bool>();
    count = std::count(begin, begin + rows, true);
  }
  count = std::max<int64_t>(count, 1);
  return static_cast<double>(arguments.reduction == "mean" ? count * classes : count);
}

LossAndGradient kd_loss_on_cpu(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments,
                               bool want_gradient) {
  if (core::composite_on_cpu()) {
    return kd_loss_composite(student, teacher, arguments, want_gradient);
  }
  check_kd_loss(student, teacher, arguments);
  const int64_t classes = student.size(-1);
  const int64_t rows = student.numel() / classes;
  const at::Tensor kept = kept_rows(arguments).value_or(at::Tensor());
  const at::Tensor target = arguments.target ? arguments.target->contiguous() : at::Tensor();
  if (target.defined()) {
    check_labels(target, kept, classes);
  }
  at::Tensor gradient;
  if (want_gradient) {
    gradient = at::empty(student.sizes(), student.options());
    core::advise_huge_pages(gradient.mutable_data_ptr(), gradient.nbytes());
  }
  const double divisor = divisor_of(arguments, kept, rows, classes);
  const double unit = divisor * gradient_unit(student.scalar_type(), arguments);
  const LogitType student_type = logit_type(student.scalar_type());
  KdJob job{.student = Rows(student),
            .teacher = Rows(teacher),
            .row = {.student = {.data = nullptr, .type = student_type},
                    .teacher = {.data = nullptr, .type = logit_type(teacher.scalar_type())},
                    .label = {.index = -1, .smoothing = arguments.label_smoothing},
                    .gradient = {.data = nullptr,
                                 .type = student_type,
                                 .soft = arguments.weight * arguments.temperature / unit,
                                 .hard = arguments.ce_weight / unit},
                    .classes = classes,
                    .temperature = arguments.temperature},
            .is_double = student.scalar_type() == at::kDouble,
            .gradient_row_bytes = classes * student.element_size(),
            .kd_factor = arguments.weight * arguments.temperature * arguments.temperature,
            .ce_factor = arguments.ce_weight,
            .kept = kept,
            .target = target,
            .gradient = want_gradient ? static_cast<char*>(gradient.mutable_data_ptr()) : nullptr,
            .losses = std::vector<double>(rows)};
  constexpr int64_t kElementsWorthAThread = 16384;
  at::parallel_for(0, rows, std::max<int64_t>(1, kElementsWorthAThread / classes),
                   [&](int64_t begin, int64_t end) { job.run(begin, end); });
  return {reduced(student, job.losses, divisor, arguments.reduction == "none"), gradient};
}

Loss kd_loss_cpu(const at::Tensor& student, const at::Tensor& teacher, const KdArguments& arguments) {
  return std::get<0>(kd_loss_on_cpu(student, teacher, arguments, false));
}

LossAndGradient kd_loss_and_gradient_cpu(const at::Tensor& student, const at::Tensor& teacher,
                                         const KdArguments& arguments) {
  return kd_loss_on_cpu(student, teacher, arguments, true);
}

}  // namespace
}  // namespace torchslim::distill

TORCH_LIBRARY_IMPL(torchslim, CPU, m) {
  using namespace torchslim::distill;
  m.impl("kd_loss", &as_kernel<Loss, kd_loss_cpu>);
  m.impl("_kd_loss_and_gradient", &as_kernel<LossAndGradient, kd_loss_and_gradient_cpu>);
}
