// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/rounding.h"
#include "quant/fake_quantize_kernel.h"
#include "quant/kernel_blocks.h"

// The grids of a run of elements, for kernels alone: as kernel_blocks.h, compiled for each instruction set.
namespace torchslim::CPU_CAPABILITY {

template <typename T>
using Grid = core::StepGrid<T>;

// One grid for all elements of a run.
template <typename T>
struct SameGrid {
  Grid<Vec<T>> lanes;
  Grid<Acc<T>> single;

  SameGrid(const quant::ChannelGrids& grids, int64_t channel)
      : single{grids.inverse_scale[channel], grids.scale[channel], grids.low[channel], grids.high[channel]} {
    lanes = {Vec<T>(single.inverse_scale), Vec<T>(single.scale), Vec<T>(single.low), Vec<T>(single.high)};
  }

  const Grid<Vec<T>>& vector(int64_t) const { return lanes; }
  const Grid<Acc<T>>& scalar(int64_t) const { return single; }
};

// Loads floats as the type of the maths.
template <typename T>
TORCHSLIM_INLINE Vec<T> load_floats(const float* from) {
  if constexpr (std::is_same_v<T, double>) {
    double wide[Vec<T>::size()];
    std::copy(from, from + Vec<T>::size(), wide);
    return Vec<T>::loadu(wide);
  } else {
    return Vec<T>::loadu(from);
  }
}

// Neighbouring elements are neighbouring channels, the first of them `first`.
template <typename T>
struct NeighbourGrids {
  const quant::ChannelGrids& grids;
  int64_t first;

  Grid<Vec<T>> vector(int64_t i) const {
    const int64_t c = first + i;
    return {load_floats<T>(grids.inverse_scale + c), load_floats<T>(grids.scale + c), load_floats<T>(grids.low + c),
            load_floats<T>(grids.high + c)};
  }
  Grid<Acc<T>> scalar(int64_t i) const {
    const int64_t c = first + i;
    return {grids.inverse_scale[c], grids.scale[c], grids.low[c], grids.high[c]};
  }
};

}  // namespace torchslim::CPU_CAPABILITY
