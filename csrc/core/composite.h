// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdlib>
#include <string_view>

namespace torchslim::core {

/// Returns whether the environment variable TORCHSLIM_COMPOSITE=1 (read once) makes CPU tensors take the composites of
/// ATen ops that serve other devices. For tests.
inline bool composite_on_cpu() {
  static const bool forced = [] {
    const char* value = std::getenv("TORCHSLIM_COMPOSITE");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return forced;
}

}  // namespace torchslim::core
