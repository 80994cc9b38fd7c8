// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>

#include <cmath>

#include "quant/level_fake_quantize.h"
#include "quant/scale_table.h"

namespace torchslim::quant::detail {
namespace {
constexpr int64_t kMostLevels = 65536;
}

void check_levels(const at::Tensor& self, const at::Tensor& levels) {
  check_input(kLevelOp, self);
  check_companion(kLevelOp, "levels", levels, self);
  TORCH_CHECK_VALUE(levels.dim() == 1 && levels.sym_size(0) >= 1 && levels.sym_size(0) <= kMostLevels, kLevelOp,
                    ": levels must have shape [n] with n in [1, ", kMostLevels, "], got shape ", levels.sym_sizes());
}

void check_level_values(const at::Tensor& levels) {
  const float* level = levels.const_data_ptr<float>();
  const int64_t n = levels.numel();
  for (int64_t i = 0; i < n; ++i) {
    TORCH_CHECK_VALUE(std::isfinite(level[i]), kLevelOp, ": levels must be finite, got ", level[i], " at index ", i);
    TORCH_CHECK_VALUE(i == 0 || level[i - 1] < level[i], kLevelOp, ": levels must ascend strictly, got ", level[i - 1],
                      " and then ", level[i], " at index ", i, "; sort them and drop duplicates");
  }
}

}  // namespace torchslim::quant::detail
