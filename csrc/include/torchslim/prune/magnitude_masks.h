// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <string>
#include <vector>

namespace torchslim::prune {

/// What a share of zeros is taken of: all tensors together, or each tensor alone.
enum class Scope { kGlobal, kLayer };

/// Returns one bool mask a tensor, true where the weight is kept: the weights of smallest magnitude
/// are pruned.
///   tensors   float32, float64, bfloat16 or float16, any shape and strides, of one dtype if the
///   scope is global; unchanged sparsity  share in [0, 1] to prune: exactly round(N·sparsity) of
///   the N weights in the scope, halves to even scope     kGlobal ranks all tensors together,
///   kLayer each alone names     how errors call the tensors ("tensors[i]" if empty)
/// Equal magnitudes are pruned in flat order: tensor by tensor, row by row, as a stable sort would.
/// A mask has its tensor's shape, device and strides (contiguous, if those overlap or leave gaps).
/// The bits are the same for any number of threads. Streams over the weights in place: no
/// concatenation, no sort. Throws c10::ValueError for a sparsity out of range, NaN among the
/// weights, mixed dtypes in a global scope or a wrong number of names; c10::TypeError for another
/// dtype.
TORCHSLIM_API std::vector<at::Tensor> magnitude_masks(at::TensorList tensors, double sparsity,
                                                      Scope scope = Scope::kGlobal,
                                                      const std::vector<std::string>& names = {});

namespace detail {

/// magnitude_masks for tensors that are zero wherever `previous` is false: what was pruned stays
/// pruned, also when more weights are exactly zero than are to be pruned, and nothing grows back if
/// `sparsity` falls.
TORCHSLIM_API std::vector<at::Tensor> tighten_masks(at::TensorList tensors, at::TensorList previous, double sparsity,
                                                    Scope scope, const std::vector<std::string>& names);

}  // namespace detail
}  // namespace torchslim::prune
