// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "core/cpu_dispatch.h"

namespace torchslim::distill {

/// The types that are computed in float: read and written as they are, widened inside the kernel.
enum class LogitType { kFloat, kBFloat16, kHalf };

/// One row of logits: `classes` values without gaps.
struct LogitRow {
  const void* data;
  LogitType type;
};

/// A row's label for the cross-entropy; (1 − smoothing) of the target lies on `index`, the rest evenly on all classes.
struct HardLabel {
  int64_t index;  // -1: no cross-entropy
  double smoothing;
};

/// Where a row's gradient goes, in the type of the student: soft · (q − p) + hard · (softmax(student) − target).
struct GradientRow {
  void* data;  // null: it is not wanted
  LogitType type;
  double soft, hard;
};

struct KdRow {
  LogitRow student, teacher;
  HardLabel label;
  GradientRow gradient;
  int64_t classes;
  double temperature;
};

/// KL(p‖q) for p = softmax(teacher / temperature), q = softmax(student / temperature), and the cross-entropy of the
/// label (0 without one), in nats.
struct KdRowLoss {
  double divergence, cross_entropy;
};

/// How many elements of a row are worked on at once: 4 KB of student and 4 KB of teacher stay in the first cache.
constexpr int64_t kKdBlock = 1024;

/// Returns how many floats `kd_row` needs as scratch when it writes a gradient: three exponentials a class, two maxima a
/// block.
constexpr int64_t kd_scratch_size(int64_t classes) {
  return 3 * ((classes + 7) / 8 * 8) + 2 * ((classes + kKdBlock - 1) / kKdBlock);
}

}  // namespace torchslim::distill

// Returns the row's losses and writes its gradient. The first sweep reads both rows once and keeps their exponentials
// in `scratch`; the second takes none.
TORCHSLIM_DECLARE_KERNEL(distill::KdRowLoss kd_row(const distill::KdRow& row, float* scratch);)
