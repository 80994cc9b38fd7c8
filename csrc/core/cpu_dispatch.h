// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <optional>

namespace torchslim::core {

/// The instruction sets that kernels are compiled for.
enum class CpuCapability { kPortable, kAvx2 };

/// Returns the instruction set that kernels run with: the best that this CPU has, unless the
/// environment variable TORCHSLIM_CPU_CAPABILITY (`portable` or `avx2`, read once) or
/// `force_cpu_capability` says otherwise. Throws c10::ValueError if the variable names another set,
/// or one that this CPU lacks.
TORCHSLIM_API CpuCapability cpu_capability();

/// Makes kernels run with `capability`, or again with the default if it is empty. For tests.
/// Throws c10::ValueError if this CPU lacks it.
TORCHSLIM_API void force_cpu_capability(std::optional<CpuCapability> capability);

}  // namespace torchslim::core

// A kernel header declares its functions once per instruction set:
//   TORCHSLIM_DECLARE_KERNEL(void scale_f32(const float* x, float* y, int64_t n, float scale);)
// its source defines them in `namespace torchslim::CPU_CAPABILITY`, and the caller writes
//   TORCHSLIM_CALL_KERNEL(scale_f32, x, y, n, 2.0f);
#define TORCHSLIM_DECLARE_KERNEL(...) \
  namespace torchslim::DEFAULT {      \
  __VA_ARGS__                         \
  }                                   \
  namespace torchslim::AVX2 {         \
  __VA_ARGS__                         \
  }

#define TORCHSLIM_CALL_KERNEL(kernel, ...)                                        \
  (::torchslim::core::cpu_capability() == ::torchslim::core::CpuCapability::kAvx2 \
       ? ::torchslim::AVX2::kernel(__VA_ARGS__)                                   \
       : ::torchslim::DEFAULT::kernel(__VA_ARGS__))
