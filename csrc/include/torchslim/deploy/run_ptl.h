// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>

#include <cstdint>
#include <memory>
#include <string>

namespace torchslim::deploy {

/// A .ptl file in PyTorch Mobile's lite interpreter, as a phone runs it: engine QNNPACK while it is loaded and run,
/// afterwards the engine of before. Copies share the loaded network. One thread at a time.
class TORCHSLIM_API PtlModel {
 public:
  /// Loads the file. Every record is compared with its checksum first.
  /// Throws core::FileError if it cannot be read, c10::ValueError if it is cut short, changed, or no such file.
  explicit PtlModel(const std::string& path);

  /// Runs a batch: float32 (N, ...) to float32 (N, ...). Takes no gradient.
  /// Throws c10::ValueError with the runtime's reason if the batch does not fit the network.
  at::Tensor forward(const at::Tensor& images);
  at::Tensor operator()(const at::Tensor& images) { return forward(images); }

  /// Returns the text of `extra/manifest.json`, or "" if the file has none.
  const std::string& manifest() const;

 private:
  friend at::Tensor run_bytes(const std::string& bytes, const at::Tensor& images);
  PtlModel(const std::string& bytes, const std::string& path);

  struct Loaded;
  std::shared_ptr<Loaded> loaded_;
};

/// How long a file takes for one image on this machine. It says nothing about a phone: QNNPACK's kernels for
/// x86 are not those for ARM.
struct TORCHSLIM_API Latency {
  double median_ms = 0;
  double p95_ms = 0;  // 95 of 100 runs were at most this long
  int64_t runs = 0;
};

/// Times `runs` forward passes after `warm_up` untimed ones; puts LibTorch's number of threads back.
///   image    one image, (1, ...)
///   threads  > 0, for LibTorch's and QNNPACK's pools
TORCHSLIM_API Latency measure_latency(PtlModel& model, const at::Tensor& image, int64_t runs = 200,
                                      int64_t warm_up = 20, int64_t threads = 1);

}  // namespace torchslim::deploy
