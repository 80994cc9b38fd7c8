// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

namespace torchslim::prune {

/// Sets `tensors[i]` to +0 wherever the bool `masks[i]` of the same shape is false, NaN and
/// infinity included, in place and below autograd. One mask may stand for several tensors: a
/// weight, its gradient, its momentum. Throws c10::ValueError if lengths or shapes differ,
/// c10::TypeError if a mask is not bool; then nothing has changed.
TORCHSLIM_API void apply_masks_(at::TensorList tensors, at::TensorList masks);

}  // namespace torchslim::prune
