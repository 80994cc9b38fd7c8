// SPDX-License-Identifier: BSD-3-Clause
#include "core/cpu_dispatch.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace torchslim::core {
namespace {

bool cpu_has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

CpuCapability checked(CpuCapability capability, const char* who) {
  TORCH_CHECK_VALUE(capability != CpuCapability::kAvx2 || cpu_has_avx2(), who,
                    ": this CPU has no AVX2 with FMA and F16C; use `portable`");
  return capability;
}

CpuCapability default_capability() {
  constexpr const char* kVariable = "TORCHSLIM_CPU_CAPABILITY";
  const char* value = std::getenv(kVariable);
  if (value == nullptr || *value == '\0') {
    return cpu_has_avx2() ? CpuCapability::kAvx2 : CpuCapability::kPortable;
  }
  const std::string_view name(value);
  TORCH_CHECK_VALUE(name == "portable" || name == "avx2", kVariable, ": expected `portable` or `avx2`, got `", name,
                    "`");
  return name == "avx2" ? checked(CpuCapability::kAvx2, kVariable) : CpuCapability::kPortable;
}

constexpr int kNotForced = -1;
std::atomic<int> forced{kNotForced};

}  // namespace

CpuCapability cpu_capability() {
  const int capability = forced.load(std::memory_order_relaxed);
  if (capability != kNotForced) {
    return static_cast<CpuCapability>(capability);
  }
  static const CpuCapability by_default = default_capability();
  return by_default;
}

void force_cpu_capability(std::optional<CpuCapability> capability) {
  forced = capability ? static_cast<int>(checked(*capability, "force_cpu_capability")) : kNotForced;
}

}  // namespace torchslim::core
