// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <c10/util/Exception.h>
#include <torchslim/core/atomic_file.h>

#include <string>
#include <vector>

#include "deploy/onnx_builder.h"
#include "deploy/ptl_file.h"

// What the writers of int8 and float ONNX files share.
namespace torchslim::deploy {

constexpr const char* kOnnxFormat = "torchslim.onnx/1";
constexpr int64_t kLeastOpset = 13;  // with an axis for the scales of channels
constexpr int64_t kInt4Opset = 21;

/// Writes a network by `write(OnnxBuilder&)` with the lowest opset that has what it needs, or the one that was asked for,
/// and puts the file in place.
template <typename Write>
SavedFile write_onnx(const std::string& path, const std::string& kind, const std::string& manifest,
                     const std::vector<int64_t>& input_shape, const SaveOptions& options, const Write& write) {
  TORCH_CHECK_VALUE(!options.opset || (*options.opset >= kLeastOpset && *options.opset <= kInt4Opset),
                    "torchslim::save_onnx: opset must be in [13, 21], got ", options.opset.value_or(0));
  for (int64_t opset = options.opset.value_or(kLeastOpset);;) {
    OnnxBuilder builder(opset, input_shape);
    write(builder);
    if (builder.needed() <= opset) {
      const std::string bytes = builder.serialize({{"torchslim", manifest}});
      core::write_file(path, bytes);
      return {path, kind, static_cast<int64_t>(bytes.size()), builder.constants()};
    }
    TORCH_CHECK_VALUE(!options.opset, "torchslim::save_onnx: the network has an operator that came with opset ",
                      builder.needed(), ", but opset ", opset, " was asked for; leave it out or ask for a newer one");
    opset = builder.needed();
  }
}

}  // namespace torchslim::deploy
