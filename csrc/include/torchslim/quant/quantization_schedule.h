// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/api/include/torch/ordered_dict.h>
#include <torch/nn/module.h>
#include <torchslim/api.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace torchslim::quant {

/// When quantisers observe and round and batch norms hold, in calls of `QuantizationSchedule::step`.
///
/// Example: ScheduleOptions().quantize_from(100).freeze_observers_at(900).freeze_batch_norm_at(800)
struct TORCHSLIM_API ScheduleOptions {
  /// From here on, training forwards move the ranges. Default: 0.
  TORCH_ARG(int64_t, observe_from) = 0;
  /// From here on, forwards round. Not before `observe_from`. Default: 0.
  TORCH_ARG(int64_t, quantize_from) = 0;
  /// From here on, ranges stay as they are. After `observe_from`. Empty: never. Default: empty.
  TORCH_ARG(std::optional<int64_t>, freeze_observers_at) = std::nullopt;
  /// From here on, the statistics of batch norms stay as they are. Empty: never. Default: empty.
  TORCH_ARG(std::optional<int64_t>, freeze_batch_norm_at) = std::nullopt;

 public:
  /// Throws c10::ValueError unless the numbers are >= 0 and in an order that makes sense.
  void check() const;
};

/// What is on after some steps.
struct TORCHSLIM_API ScheduleState {
  bool observes;
  bool rounds;
  bool freezes_batch_norm;
  bool operator==(const ScheduleState&) const = default;
};

/// Returns what is on after `step` steps.
TORCHSLIM_API ScheduleState schedule_state(const ScheduleOptions& options, int64_t step);

/// Switches the observers, the quantisers and the batch norms of a prepared module by the number of steps taken.
/// Call `step()` after each optimiser step (or epoch: the unit is yours). The switches are set at once, and then only when
/// one changes, so that calls of `disable_observer` and the like in between hold until the next change.
class TORCHSLIM_API QuantizationSchedule {
 public:
  /// `module`: prepared, and alive as long as the schedule. Throws c10::ValueError for wrong options or without a quantiser.
  QuantizationSchedule(std::shared_ptr<torch::nn::Module> module, const ScheduleOptions& options);

  /// Counts a step, and switches what changes.
  void step();

  /// Returns how many steps were counted, as "step", int64 ().
  torch::OrderedDict<std::string, at::Tensor> state_dict() const;
  /// Goes on from there, with its switches. Throws c10::ValueError without a "step" >= 0.
  void load_state_dict(const torch::OrderedDict<std::string, at::Tensor>& state);

 private:
  void apply(std::optional<ScheduleState> before);

  std::shared_ptr<torch::nn::Module> module_;
  ScheduleOptions options_;
  int64_t step_ = 0;
};

}  // namespace torchslim::quant
