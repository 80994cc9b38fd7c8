// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/deploy/target.h>

#include <limits>
#include <set>
#include <string>

namespace torchslim::deploy {

/// What a target can do. The defaults are a target that can do everything.
struct TargetProfile {
  std::string name;
  std::set<IntegerOp> float_ops{};  // without an integer kernel
  bool pools_one_element = true;
  bool pads_dilated_maxima = true;  // computes maxima with padding and dilation right
  bool groups_transposed = true;    // transposed convolutions with groups and a scale for each channel
  double smallest_factor = 0;       // of input scale * weight scale / output scale
  double factors_below = std::numeric_limits<double>::infinity();
};

/// Returns the profile of `target`; throws c10::ValueError if there is none.
const TargetProfile& target_profile(const std::string& target);

/// Returns how a target with `profile` computes `node`.
Arithmetic arithmetic_of(const IntegerNode& node, const TargetProfile& profile);

}  // namespace torchslim::deploy
