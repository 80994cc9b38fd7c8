// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

namespace torchslim::prune::detail {

/// Gives `tensor`, a parameter or buffer, the data of `data`, which may have another shape: the same object for whoever
/// holds it. Its gradient is dropped. Graphs recorded before cannot be run backward through it any more.
TORCHSLIM_API void replace_data(const at::Tensor& tensor, const at::Tensor& data);

}  // namespace torchslim::prune::detail
