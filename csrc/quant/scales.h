// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace torchslim::quant {

/// The scales of a tensor that lies in memory as rows of `run` elements. A row has one scale or (`neighbours`) one for each
/// of its elements; `repeat` rows after each other share them, and after `groups` such groups they begin again.
struct Scales {
  const float* inverse_scale;  // 1 / scale
  const float* scale;
  int64_t run;
  int64_t repeat;
  int64_t groups;
  bool neighbours;
};

}  // namespace torchslim::quant
