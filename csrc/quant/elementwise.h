// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "core/large_outputs.h"

// How an op walks the elements of a dense tensor.
namespace torchslim::quant::detail {

/// Elements that one thread takes at a time; a multiple of 8, the bits of a byte. Sums over chunks, added in order, have
/// the same bits for any number of threads.
constexpr int64_t kChunk = 32768;

/// Calls work(begin, end) for parts of [0, n), on all threads; all but the last end at a multiple of `chunk`.
template <typename Work>
void for_each_chunk(int64_t n, const Work& work, int64_t chunk = kChunk) {
  if (n <= chunk) {
    work(0, n);
    return;
  }
  at::parallel_for(0, (n + chunk - 1) / chunk, 1,
                   [&](int64_t first, int64_t last) { work(first * chunk, std::min(last * chunk, n)); });
}

/// Advises huge pages for a new tensor that will be written whole.
inline at::Tensor large(at::Tensor tensor) {
  core::advise_huge_pages(tensor.mutable_data_ptr(), tensor.nbytes());
  return tensor;
}

/// Returns x as a dense tensor with the strides of `like`: x itself if it has them.
inline at::Tensor in_layout_of(const at::Tensor& x, at::Tensor like) {
  const bool same = x.is_non_overlapping_and_dense() && x.strides() == like.strides();
  return same ? x : like.copy_(x);
}

}  // namespace torchslim::quant::detail
