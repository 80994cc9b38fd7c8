// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torchslim/api.h>

#include <vector>

// LibTorch's process groups: <torch/csrc/distributed/c10d/ProcessGroup.hpp>.
namespace c10d {
class ProcessGroup;
}

namespace torchslim::quant {

/// What an observer has seen.
struct TORCHSLIM_API ObservedState {
  at::Tensor min_val;    // float32
  at::Tensor max_val;    // float32, the shape of min_val
  at::Tensor histogram;  // int64; undefined where there is none
};

/// Gives the ranks of a process group one state each: min_val and max_val become the extremes of all ranks, and histogram
/// counts what all ranks counted, in the bins of the common range. Every rank then holds the same bits; a histogram holds
/// those of one observer that saw all data.
///   states  changed; one that has seen nothing takes the other ranks' shape
///   group   every rank must call, with states of the same kinds; three collectives, and two for each histogram
/// Throws c10::ValueError on all ranks if their numbers of states, shapes or bins differ or a histogram does not fit its
/// range; no state is then changed.
TORCHSLIM_API void reduce_states(const std::vector<ObservedState>& states, c10d::ProcessGroup& group);

/// Calls `reduce_states` with every observer in `module` and every `FakeQuantize`, whose scale and zero point are then
/// chosen again: all ranks have the same grids. Moving averages become the widest of all ranks. Called after each step of
/// ranks that hold equal states before it, ranges are those of one process that sees the whole batch, bit for bit.
TORCHSLIM_API void reduce_observers(torch::nn::Module& module, c10d::ProcessGroup& group);

}  // namespace torchslim::quant
