// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/ptl_file.h"

#include <c10/util/Exception.h>
#include <torch/csrc/jit/mobile/compatibility/backport.h>
#include <torchslim/core/atomic_file.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "deploy/zip_file.h"

namespace torchslim::deploy {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string read_file(const std::string& path) {
  std::error_code error;
  if (const auto status = std::filesystem::status(path, error);
      std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw core::FileError(std::filesystem::is_directory(status) ? EISDIR : EINVAL,
                          "torchslim: " + path + " is no file");
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    throw core::FileError(errno == 0 ? EIO : errno, "torchslim: cannot read " + path);
  }
  return bytes;
}

void check_suffix(const std::string& path) {
  TORCH_CHECK_VALUE(!ends_with(path, ".pte"),
                    "torchslim::save: .pte files (ExecuTorch) are written from Python alone, by ",
                    "torchslim.deploy.save; save to a path that ends in .ptl or .onnx, got ", path);
  TORCH_CHECK_VALUE(!ends_with(path, ".slim"), "torchslim::save: .slim files are not available yet; ",
                    "save to a path that ends in .ptl or .onnx, got ", path);
  TORCH_CHECK_VALUE(ends_with(path, ".ptl") || ends_with(path, ".onnx"),
                    "torchslim::save: the path must end in .ptl (PyTorch Mobile) or .onnx, got ", path);
}

void check_save(const std::string& path, const char* suffix, const std::vector<int64_t>& shape,
                const SaveOptions& options) {
  check_suffix(path);
  TORCH_CHECK_VALUE(ends_with(path, suffix), "torchslim::save: the path must end in ", suffix, " here, got ", path);
  TORCH_CHECK_VALUE(!options.bytecode || (*options.bytecode >= 4 && *options.bytecode <= 7),
                    "torchslim::save: bytecode must be in [4, 7] or be left out, got ", options.bytecode.value_or(0));
  check_normalisation(shape, options);
}

void check_normalisation(const std::vector<int64_t>& shape, const SaveOptions& options) {
  TORCH_CHECK_VALUE(options.mean.size() == options.std.size(),
                    "torchslim::save: mean and std must have one number per channel each, got ", options.mean.size(),
                    " and ", options.std.size());
  TORCH_CHECK_VALUE(options.mean.empty() || (shape.size() > 1 && static_cast<int64_t>(options.mean.size()) == shape[1]),
                    "torchslim::save: mean and std must have one number for each of the ",
                    shape.size() > 1 ? shape[1] : 0, " input channels, got ", options.mean.size());
}

void check_float(const char* who, const graph::Graph& graph) {
  TORCH_CHECK_VALUE(!graph.nodes.empty() && graph.nodes[0].kind == graph::OpKind::kInput, who,
                    ": the graph must begin with its input");
  for (const graph::Node& node : graph.nodes) {
    TORCH_CHECK_VALUE(node.kind != graph::OpKind::kFakeQuantize && !node.weight_grid, who, ": ", node.layer,
                      " is fake-quantised; use save, which writes such a model in int8");
    for (const graph::NamedTensor* tensor : {&node.weight, &node.bias, &node.running_mean, &node.running_var}) {
      TORCH_CHECK_VALUE(!tensor->defined() || tensor->value.isfinite().all().item<bool>(), who, ": ", node.layer, ": ",
                        tensor->name, " holds NaN or infinity");
    }
  }
}

std::string with_bytecode(const std::string& bytes, const SaveOptions& options) {
  if (!options.bytecode) {
    return bytes;
  }
  std::istringstream in(bytes);
  std::ostringstream out;
  TORCH_CHECK(torch::jit::_backport_for_mobile(in, out, *options.bytecode),
              "torchslim::save: LibTorch could not write bytecode ", *options.bytecode, "; save without `bytecode`");
  return out.str();
}

SavedFile write_ptl(const std::string& bytes, const std::string& path, const std::string& kind) {
  const size_t records = read_zip(bytes, path).size();
  core::write_file(path, bytes);
  return {path, kind, static_cast<int64_t>(bytes.size()), static_cast<int64_t>(records)};
}

}  // namespace torchslim::deploy
