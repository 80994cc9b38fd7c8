// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/version.h>

namespace torchslim {

const char* version() { return TORCHSLIM_VERSION; }

const char* built_with_torch() { return TORCHSLIM_TORCH_VERSION; }

}  // namespace torchslim
