// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/deploy/ptl.h>
#include <torchslim/graph/capture.h>

#include <type_traits>
#include <utility>

namespace torchslim::deploy {

/// Captures `network` in eval mode and writes it by the suffix of `path`: int8 if it is prepared, float if not.
///   network  a module (`*student`) or a holder (`student`); not changed
///   example  a batch of the shape that it takes, float32; the file runs any batch size
/// Throws what `graph::capture`, `lower` and `save_ptl` throw.
template <typename Network>
SavedFile save(Network& network, const at::Tensor& example, const std::string& path, const SaveOptions& options = {}) {
  if constexpr (std::is_base_of_v<torch::nn::Module, Network>) {
    const auto forward = [&network](at::Tensor x) -> at::Tensor { return network.forward(std::move(x)); };
    return save(graph::capture(network, forward, example), path, options);
  } else {
    return save(graph::capture(network, example), path, options);
  }
}

}  // namespace torchslim::deploy
