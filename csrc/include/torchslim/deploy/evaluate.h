// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/deploy/run_ptl.h>

#include <cstdint>
#include <optional>

namespace torchslim::deploy {

/// Returns the outputs of `model` for all images, `batch` at a time: (N, ...).
TORCHSLIM_API at::Tensor run_batches(PtlModel& model, const at::Tensor& images, int64_t batch = 64);

/// Returns the share of rows whose largest logit is at the row's target; of equal logits the first counts.
///   logits  (N, C) float32     targets  (N) int64 in [0, C)
TORCHSLIM_API double accuracy(const at::Tensor& logits, const at::Tensor& targets);

/// Returns how many outputs of a file are not those of the integer reference, of N · C.
///   outputs  what the file of `graph` gave for `images`, float32
/// Throws c10::ValueError if `graph` ends in floats, which depend on the order of sums: `compare_outputs` says how far.
TORCHSLIM_API int64_t count_reference_differences(const at::Tensor& outputs, const IntegerGraph& graph,
                                                  const at::Tensor& images);

/// How near the outputs of a file are to those of the model that was trained.
struct TORCHSLIM_API Agreement {
  double top1 = 0;                     // share of rows with the same largest logit
  std::optional<int64_t> max_steps;    // largest difference, in steps of the output grid
  std::optional<double> mean_steps;    // mean absolute difference, in the same steps
  std::optional<double> max_relative;  // without an output grid: max |file - fake_quantised| / max |fake_quantised|
};

/// Compares the outputs of a file with those of the fake-quantised model.
///   file, fake_quantised  (N, C) float32
///   step                  > 0, scale of the output grid; none: the outputs are floats, and differences are relative
TORCHSLIM_API Agreement compare_outputs(const at::Tensor& file, const at::Tensor& fake_quantised,
                                        std::optional<double> step = std::nullopt);

}  // namespace torchslim::deploy
