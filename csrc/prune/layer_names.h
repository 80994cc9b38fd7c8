// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <string>
#include <vector>

namespace torchslim::prune::detail {

/// Returns those of `layers` (dotted names, unique) that `names` picks and `exclude` does not, in their order.
///   names, exclude   each the name of a layer or of a module that layers lie under; no `names` pick all
///   call             who asks, for errors
/// Throws c10::ValueError for a name that matches no layer, with the nearest ones, and if no layer is left.
TORCHSLIM_API std::vector<std::string> select_layers(const std::string& call, const std::vector<std::string>& layers,
                                                     const std::vector<std::string>& names,
                                                     const std::vector<std::string>& exclude);

}  // namespace torchslim::prune::detail
