// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/deploy/ptl.h>
#include <torchslim/graph/capture.h>

#include <type_traits>
#include <utility>

namespace torchslim::deploy {

namespace detail {

/// Returns the graph for one image, which integers count on where the batch lies elsewhere for a while. A larger example
/// is captured first: it shows what is fixed to its size.
template <typename Capture>
graph::Graph capture_one(const Capture& capture, const at::Tensor& example) {
  graph::Graph graph = capture(example);
  return example.dim() > 0 && example.size(0) > 1 ? capture(example.narrow(0, 0, 1)) : std::move(graph);
}

}  // namespace detail

/// Captures `network` in eval mode and writes it by the suffix of `path`: int8 if it is prepared, float if not.
///   network  a module (`*student`) or a holder (`student`); not changed
///   example  a batch of the shape that it takes, float32; the file runs any batch size
/// Throws what `graph::capture`, `lower` and `save_ptl` throw.
template <typename Network>
SavedFile save(Network& network, const at::Tensor& example, const std::string& path, const SaveOptions& options = {}) {
  if constexpr (std::is_base_of_v<torch::nn::Module, Network>) {
    const auto forward = [&network](at::Tensor x) -> at::Tensor { return network.forward(std::move(x)); };
    const auto capture = [&](const at::Tensor& x) { return graph::capture(network, forward, x); };
    return save(detail::capture_one(capture, example), path, options);
  } else {
    const auto capture = [&](const at::Tensor& x) { return graph::capture(network, x); };
    return save(detail::capture_one(capture, example), path, options);
  }
}

}  // namespace torchslim::deploy
