// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <string>

/// Images as bytes (N, 28, 28) and labels (N) as int64.
struct ImageSet {
  at::Tensor images;
  at::Tensor labels;
};

/// Reads `<folder>/<prefix>-images-idx3-ubyte` and `<prefix>-labels-idx1-ubyte` (prefix `train` or `t10k`), the first
/// `limit` images of them (0: all). Throws c10::Error naming the file where one is missing, truncated or not an idx file.
ImageSet read_fashion_mnist(const std::string& folder, const std::string& prefix, int64_t limit = 0);

/// Returns images (N, 28, 28) of bytes as floats (N, 1, 28, 28) in [0, 1], channels_last.
at::Tensor to_float(const at::Tensor& images);

/// Returns a copy of images (N, 28, 28) of bytes, each moved by -1, 0 or 1 pixels both ways, zeros moving in.
at::Tensor shifted(const at::Tensor& images, at::Generator& generator);
