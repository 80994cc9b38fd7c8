// SPDX-License-Identifier: BSD-3-Clause
#include "quant/learned_fake_quantize_kernel.h"

#include <ATen/cpu/vec/vec.h>

#include <type_traits>

#include "core/rounding.h"
#include "core/streaming_store.h"
#include "quant/kernel_blocks.h"
#include "quant/kernel_grids.h"

namespace torchslim::CPU_CAPABILITY {
namespace {

using Doubles = at::vec::Vectorized<double>;

template <typename T>
TORCHSLIM_INLINE T choose(bool condition, T yes, T no) {
  return condition ? yes : no;
}
template <typename T>
TORCHSLIM_INLINE at::vec::Vectorized<T> choose(const at::vec::Vectorized<T>& condition,
                                               const at::vec::Vectorized<T>& yes, const at::vec::Vectorized<T>& no) {
  return at::vec::Vectorized<T>::blendv(no, yes, condition);
}

// The lanes of a vector as doubles.
template <typename V>
struct Wide {
  Doubles part[V::size() / Doubles::size()];
};

TORCHSLIM_INLINE Wide<Doubles> widen(const Doubles& value) { return {{value}}; }
TORCHSLIM_INLINE Wide<at::vec::Vectorized<float>> widen(const at::vec::Vectorized<float>& value) {
#ifdef CPU_CAPABILITY_AVX2
  return {{_mm256_cvtps_pd(_mm256_castps256_ps128(value)), _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1))}};
#else
  float narrow[at::vec::Vectorized<float>::size()];
  double wide[at::vec::Vectorized<float>::size()];
  value.store(narrow);
  for (int i = 0; i < at::vec::Vectorized<float>::size(); ++i) {
    wide[i] = narrow[i];
  }
  return {{Doubles::loadu(wide), Doubles::loadu(wide + Doubles::size())}};
#endif
}

// Sums one quantity over a run of one channel: element i goes to sum i % kLanes, whatever the width of a vector.
constexpr int64_t kLanes = 8;

template <typename V>
class RunSum {
 public:
  // Adds the elements from `lane` on; it is a constant to the compiler where the loop around is unrolled.
  TORCHSLIM_INLINE void add(int64_t lane, const V& value) {
    const auto wide = widen(value);
    for (int k = 0; k < V::size() / Doubles::size(); ++k) {
      auto& part = parts_[lane / Doubles::size() + k];
      part = part + wide.part[k];
    }
  }

  // Ends the vectors; single elements may follow.
  void spill() {
    for (int64_t k = 0; k < kLanes / Doubles::size(); ++k) {
      parts_[k].store(lanes_ + k * Doubles::size());
    }
  }

  void add_one(int64_t lane, double value) { lanes_[lane] += value; }

  double total() const {
    double total = 0;
    for (const double lane : lanes_) {
      total += lane;
    }
    return total;
  }

 private:
  Doubles parts_[kLanes / Doubles::size()] = {};
  double lanes_[kLanes];
};

// The sums of a run of one channel.
template <typename T>
struct SameSums {
  RunSum<Vec<T>> scale, outside;

  TORCHSLIM_INLINE void add(int64_t, int64_t lane, const Vec<T>& to_scale, const Vec<T>& to_outside) {
    scale.add(lane, to_scale);
    outside.add(lane, to_outside);
  }
  void spill() {
    scale.spill();
    outside.spill();
  }
  void add_one(int64_t i, Acc<T> to_scale, Acc<T> to_outside) {
    scale.add_one(i % kLanes, to_scale);
    outside.add_one(i % kLanes, to_outside);
  }
  void finish(double* scale_slot, double* outside_slot) const {
    if (scale_slot != nullptr) {
      *scale_slot += scale.total();
    }
    if (outside_slot != nullptr) {
      *outside_slot += outside.total();
    }
  }
};

template <typename V>
TORCHSLIM_INLINE void add_to(double* slots, const V& value) {
  if (slots != nullptr) {
    const auto wide = widen(value);
    for (int k = 0; k < V::size() / Doubles::size(); ++k) {
      double* slot = slots + k * Doubles::size();
      (Doubles::loadu(slot) + wide.part[k]).store(slot);
    }
  }
}

// The sums of neighbouring channels, each in its slot.
template <typename T>
struct NeighbourSums {
  double* scale;
  double* outside;

  TORCHSLIM_INLINE void add(int64_t i, int64_t, const Vec<T>& to_scale, const Vec<T>& to_outside) const {
    add_to(scale == nullptr ? nullptr : scale + i, to_scale);
    add_to(outside == nullptr ? nullptr : outside + i, to_outside);
  }
  void spill() const {}
  void add_one(int64_t i, Acc<T> to_scale, Acc<T> to_outside) const {
    if (scale != nullptr) {
      scale[i] += to_scale;
    }
    if (outside != nullptr) {
      outside[i] += to_outside;
    }
  }
};

// What elements contribute to the three gradients.
template <typename V>
struct Terms {
  V x, scale, outside;
};

// Rounded: inside where clamping the rounded value changed nothing, ∂y/∂scale = nearest − x/scale there.
// Clip: inside where x lies between the first and the last point, ∂y/∂scale = 0 there.
// Beyond the grid ∂y/∂scale is the first or the last step. dx is a product, as in ATen: NaN in dy is not hidden.
template <bool kClip, typename V>
TORCHSLIM_INLINE Terms<V> terms_of(const V& dy, const V& x, const core::StepGrid<V>& grid) {
  const V position = x * grid.inverse_scale;
  const V steps = core::steps_from_zero(x, grid);
  const V nearest = core::clamp(steps, grid.low, grid.high);
  const auto inside = [&] {
    if constexpr (kClip) {
      return (position > grid.low) & (position < grid.high);
    } else {
      return nearest == steps;
    }
  }();
  const V error = nearest - choose(inside, kClip ? nearest : position, V(0));
  return {dy * choose(inside, V(1), V(0)), dy * error, choose(inside, V(0), dy)};
}

template <bool kClip, typename T, typename Grids, typename Sums>
TORCHSLIM_INLINE void gradient_block(const T* dy, const T* x, T* dx, int64_t i, int64_t lane, const Grids& grids,
                                     Sums& sums, const Store& store) {
  Block<T> slopes(dy + i);
  const Block<T> values(x + i);
  for (int k = 0; k < kVectors<T>; ++k) {
    const int64_t offset = k * Vec<T>::size();
    const auto terms = terms_of<kClip, Vec<T>>(slopes.part[k], values.part[k], grids.vector(i + offset));
    sums.add(i + offset, (lane + offset) % kLanes, terms.scale, terms.outside);
    slopes.part[k] = terms.x;
  }
  if (dx != nullptr) {
    slopes.write(store, dx + i);
  }
}

// Sums four elements of each lane in float before they are widened, which costs more than all the rest.
template <typename T>
struct GroupSums {
  static constexpr int64_t kElements = 4 * kLanes;
  Vec<T> scale[kLanes / Vec<T>::size()] = {};
  Vec<T> outside[kLanes / Vec<T>::size()] = {};

  TORCHSLIM_INLINE void add(int64_t, int64_t lane, const Vec<T>& to_scale, const Vec<T>& to_outside) {
    const int64_t part = lane / Vec<T>::size();
    scale[part] = scale[part] + to_scale;
    outside[part] = outside[part] + to_outside;
  }
  TORCHSLIM_INLINE void add_to(SameSums<T>& sums) const {
    for (int64_t lane = 0; lane < kLanes; lane += Vec<T>::size()) {
      sums.add(0, lane, scale[lane / Vec<T>::size()], outside[lane / Vec<T>::size()]);
    }
  }
};

// The elements of a run: large groups, groups of whole blocks and lanes, then single ones. Returns `sums` with what they
// add: a copy, so that it stays in registers while dx, which might be anywhere, is written.
template <bool kClip, typename T, typename Grids, typename Sums>
Sums gradient_run(const T* dy, const T* x, T* dx, int64_t n, const Grids& grids, Sums sums, bool stream) {
  constexpr int64_t kGroup = kBlock<T> > kLanes ? kBlock<T> : kLanes;
  const Store store(stream, dx);
  int64_t i = 0;
  if constexpr (std::is_same_v<Sums, SameSums<T>>) {
    for (; i + GroupSums<T>::kElements <= n; i += GroupSums<T>::kElements) {
      GroupSums<T> group;
      for (int64_t block = 0; block < GroupSums<T>::kElements; block += kBlock<T>) {
        gradient_block<kClip>(dy, x, dx, i + block, block, grids, group, store);
      }
      group.add_to(sums);
    }
  }
  for (; i + kGroup <= n; i += kGroup) {
    for (int64_t block = 0; block < kGroup; block += kBlock<T>) {
      gradient_block<kClip>(dy, x, dx, i + block, block, grids, sums, store);
    }
  }
  sums.spill();
  for (; i < n; ++i) {
    const auto terms = terms_of<kClip, Acc<T>>(static_cast<Acc<T>>(dy[i]), static_cast<Acc<T>>(x[i]), grids.scalar(i));
    sums.add_one(i, terms.scale, terms.outside);
    if (dx != nullptr) {
      dx[i] = static_cast<T>(terms.x);
    }
  }
  return sums;
}

// How many rows of neighbouring channels are summed in float before they are widened, with their grids loaded once.
constexpr int64_t kTileRows = 4;

// kTileRows whole rows of neighbouring channels; channel c adds to slot c.
template <bool kClip, typename T>
void gradient_tile(const T* dy, const T* x, T* dx, const quant::ChannelGrids& all, const quant::GradientSums& sums,
                   bool stream) {
  const NeighbourGrids<T> grids{all, 0};
  const NeighbourSums<T> slots{sums.scale, sums.outside};
  int64_t c = 0;
  for (; c + kBlock<T> <= all.channels; c += kBlock<T>) {
    Vec<T> scale[kVectors<T>] = {}, outside[kVectors<T>] = {};
    Grid<Vec<T>> grid[kVectors<T>];
    for (int k = 0; k < kVectors<T>; ++k) {
      grid[k] = grids.vector(c + k * Vec<T>::size());
    }
    for (int64_t row = 0; row < kTileRows; ++row) {
      const int64_t i = row * all.channels + c;
      Block<T> slopes(dy + i);
      const Block<T> values(x + i);
      for (int k = 0; k < kVectors<T>; ++k) {
        const auto terms = terms_of<kClip, Vec<T>>(slopes.part[k], values.part[k], grid[k]);
        scale[k] = scale[k] + terms.scale;
        outside[k] = outside[k] + terms.outside;
        slopes.part[k] = terms.x;
      }
      if (dx != nullptr) {
        slopes.write(Store(stream, dx + i), dx + i);
      }
    }
    for (int k = 0; k < kVectors<T>; ++k) {
      slots.add(c + k * Vec<T>::size(), 0, scale[k], outside[k]);
    }
  }
  for (; c < all.channels; ++c) {
    Acc<T> scale = 0, outside = 0;
    for (int64_t i = c; i < kTileRows * all.channels; i += all.channels) {
      const auto terms =
          terms_of<kClip, Acc<T>>(static_cast<Acc<T>>(dy[i]), static_cast<Acc<T>>(x[i]), grids.scalar(c));
      scale += terms.scale;
      outside += terms.outside;
      if (dx != nullptr) {
        dx[i] = static_cast<T>(terms.x);
      }
    }
    slots.add_one(c, scale, outside);
  }
}

// Walks [begin, end) in runs: elements of one channel, or (inner = 1) one element of each channel.
template <bool kClip, typename T>
void gradient_runs(const T* dy, const T* x, T* dx, int64_t begin, int64_t end, const quant::ChannelGrids& all,
                   const quant::GradientSums& sums, bool stream) {
  const bool neighbours = all.inner == 1 && all.channels > 1;
  const int64_t row = neighbours ? all.channels : all.inner;
  for (int64_t i = begin; i < end;) {
    const int64_t offset = i % row;
    // A chunk with a whole row of neighbouring channels has a slot for each of them.
    if (neighbours && offset == 0 && end - i >= kTileRows * row) {
      gradient_tile<kClip>(dy + i, x + i, dx == nullptr ? nullptr : dx + i, all, sums, stream);
      i += kTileRows * row;
      continue;
    }
    const int64_t run = offset + end - i < row ? end - i : row - offset;
    const int64_t channel = neighbours ? offset : i / row % all.channels;
    const int64_t slot = channel < sums.first ? channel - sums.first + all.channels : channel - sums.first;
    double* scale = sums.scale == nullptr ? nullptr : sums.scale + slot;
    double* outside = sums.outside == nullptr ? nullptr : sums.outside + slot;
    T* to = dx == nullptr ? nullptr : dx + i;
    if (neighbours) {
      gradient_run<kClip>(dy + i, x + i, to, run, NeighbourGrids<T>{all, channel}, NeighbourSums<T>{scale, outside},
                          stream);
    } else {
      gradient_run<kClip>(dy + i, x + i, to, run, SameGrid<T>(all, channel), SameSums<T>(), stream)
          .finish(scale, outside);
    }
    i += run;
  }
  Store(stream, nullptr).finish();  // once: a run may be a few elements
}

}  // namespace

template <typename T>
void learned_gradient_span(const T* dy, const T* x, T* dx, int64_t begin, int64_t end, const quant::ChannelGrids& grids,
                           bool clip, const quant::GradientSums& sums, bool stream) {
  clip ? gradient_runs<true>(dy, x, dx, begin, end, grids, sums, stream)
       : gradient_runs<false>(dy, x, dx, begin, end, grids, sums, stream);
}

#define TORCHSLIM_INSTANTIATE(T)                                                                                  \
  template void learned_gradient_span(const T*, const T*, T*, int64_t, int64_t, const quant::ChannelGrids&, bool, \
                                      const quant::GradientSums&, bool);
TORCHSLIM_INSTANTIATE(float)
TORCHSLIM_INSTANTIATE(double)
TORCHSLIM_INSTANTIATE(c10::BFloat16)
TORCHSLIM_INSTANTIATE(c10::Half)
#undef TORCHSLIM_INSTANTIATE

}  // namespace torchslim::CPU_CAPABILITY
