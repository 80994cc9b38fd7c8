// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torchslim/api.h>

// LibTorch's process groups: <torch/csrc/distributed/c10d/ProcessGroup.hpp>.
namespace c10d {
class ProcessGroup;
}

namespace torchslim::quant {

/// Gives the ranks of a process group one state: min_val and max_val become the extremes of all ranks, and histogram counts
/// what all ranks counted, in the bins of the common range. Every rank then holds the same bits; a histogram holds those of
/// one observer that saw all data.
///   min_val, max_val  float32, changed; a rank that has seen nothing takes the others' shape
///   histogram         int64, changed; undefined where there is none
///   group             every rank must call, with states of one kind; a collective each for shape, ranges and counts
/// Throws c10::ValueError on all ranks if their shapes or bins differ or a histogram does not fit its range; no state is then
/// changed.
TORCHSLIM_API void reduce_state(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& histogram,
                                c10d::ProcessGroup& group);

/// Calls `reduce_state` for every observer in `module`, and for every `FakeQuantize`, whose scale and zero point are then
/// chosen again: all ranks have the same grids. Moving averages become the widest of all ranks.
TORCHSLIM_API void reduce_observers(torch::nn::Module& module, c10d::ProcessGroup& group);

}  // namespace torchslim::quant
