// SPDX-License-Identifier: BSD-3-Clause
#include "core/cpu_dispatch.h"

#include "cpp/catch.hpp"

using torchslim::core::CpuCapability;

TEST_CASE("cpu_dispatch: a forced instruction set is used until it is released", "[core]") {
  const CpuCapability by_default = torchslim::core::cpu_capability();
  torchslim::core::force_cpu_capability(CpuCapability::kPortable);
  CHECK(torchslim::core::cpu_capability() == CpuCapability::kPortable);
  torchslim::core::force_cpu_capability(std::nullopt);
  CHECK(torchslim::core::cpu_capability() == by_default);
}
