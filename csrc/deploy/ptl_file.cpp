// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/ptl_file.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torchslim/core/atomic_file.h>
#include <torchslim/version.h>

#include <cerrno>
#include <fstream>
#include <iterator>

#include "deploy/zip_file.h"

namespace torchslim::deploy {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Image shapes as JSON, with null for the batch size.
std::string batch_shape(const std::vector<int64_t>& shape) {
  std::string text = "[null";
  for (const auto i : c10::irange(size_t{1}, shape.size())) {
    text += "," + json::number(shape[i]);
  }
  return text + "]";
}

std::string normalisation(const SaveOptions& options) {
  if (options.mean.empty()) {
    return "null";
  }
  return json::Object()
      .add("formula", json::quote("(pixel - mean) / std, pixels in [0, 1], by the caller"))
      .add("mean", json::array(options.mean))
      .add("std", json::array(options.std))
      .text();
}

}  // namespace

std::string read_file(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    throw core::FileError(errno == 0 ? EIO : errno, "torchslim: cannot read " + path);
  }
  return bytes;
}

at::Tensor sample_image(const std::vector<int64_t>& shape, float step, int32_t zero_point) {
  std::vector<int64_t> one = shape;
  one[0] = 1;
  at::Tensor image = at::empty(one, at::TensorOptions().dtype(at::kFloat));
  auto* pixels = image.mutable_data_ptr<float>();
  for (const auto i : c10::irange(image.numel())) {
    pixels[i] = step * static_cast<float>((89 * i + 7) % 256 - zero_point);
  }
  return image;
}

json::Object manifest_head(const std::string& kind, const std::vector<int64_t>& shape, const SaveOptions& options) {
  json::Object head;
  head.add("format", json::quote("torchslim.ptl/1"))
      .add("kind", json::quote(kind))
      .add("torchslim", json::quote(TORCHSLIM_VERSION))
      .add("torch", json::quote(TORCHSLIM_TORCH_VERSION));
  if (kind == "int8") {
    head.add("engine", json::quote("qnnpack"));
  }
  head.add("input", json::Object()
                        .add("layout", json::quote(shape.size() == 4 ? "NCHW" : "N..."))
                        .add("dtype", json::quote("float32"))
                        .add("shape", batch_shape(shape))
                        .add("normalisation", normalisation(options))
                        .text());
  if (!options.labels.empty()) {
    std::string labels;
    for (const std::string& label : options.labels) {
      labels += (labels.empty() ? "" : ",") + json::quote(label);
    }
    head.add("labels", "[" + labels + "]");
  }
  return head;
}

void check_suffix(const std::string& path) {
  for (const char* later : {".pte", ".onnx", ".slim"}) {
    TORCH_CHECK_VALUE(!ends_with(path, later), "torchslim::save: ", later,
                      " files are not available yet; save to a path that ends in .ptl, got ", path);
  }
  TORCH_CHECK_VALUE(ends_with(path, ".ptl"), "torchslim::save: the path must end in .ptl (PyTorch Mobile), got ", path);
}

void check_save(const std::string& path, const std::vector<int64_t>& shape, const SaveOptions& options) {
  check_suffix(path);
  TORCH_CHECK_VALUE(options.mean.size() == options.std.size(),
                    "torchslim::save: mean and std must have one number per channel each, got ", options.mean.size(),
                    " and ", options.std.size());
  TORCH_CHECK_VALUE(options.mean.empty() || (shape.size() > 1 && static_cast<int64_t>(options.mean.size()) == shape[1]),
                    "torchslim::save: mean and std must have one number for each of the ",
                    shape.size() > 1 ? shape[1] : 0, " input channels, got ", options.mean.size());
}

SavedFile write_ptl(const std::string& bytes, const std::string& path, const std::string& kind) {
  const size_t records = read_zip(bytes, path).size();
  core::write_file(path, bytes);
  return {path, kind, static_cast<int64_t>(bytes.size()), static_cast<int64_t>(records)};
}

}  // namespace torchslim::deploy
