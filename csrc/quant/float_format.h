// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/quant/float_format.h>

#include "quant/float_grid.h"

namespace torchslim::quant::detail {

/// Throws unless the format is one; `op` is the name that errors show.
void check_format(const char* op, const FloatFormat& format);

/// Returns the format as kernels round to it. It must have been checked.
FloatGrid float_grid(const FloatFormat& format);

}  // namespace torchslim::quant::detail
