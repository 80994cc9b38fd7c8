// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/prepared_graph.h>
#include <torchslim/quant/quantization_schedule.h>

#include <utility>

namespace torchslim::quant {
namespace {

constexpr const char* kSchedule = "torchslim::QuantizationSchedule";

bool has_batch_norm(const torch::nn::Module& module) {
  for (const auto& child : module.modules()) {
    const auto* layer = child->as<ConvBnAct2dImpl>();
    const auto* graph = child->as<PreparedGraphImpl>();
    if ((layer != nullptr && layer->options.batch_norm()) || (graph != nullptr && graph->has_batch_norm())) {
      return true;
    }
  }
  return false;
}

}  // namespace

void ScheduleOptions::check() const {
  TORCH_CHECK_VALUE(observe_from() >= 0, kSchedule, ": observe_from must be >= 0, got ", observe_from());
  TORCH_CHECK_VALUE(quantize_from() >= observe_from(), kSchedule,
                    ": quantize_from must not be before observe_from, as rounding needs a range; got ", quantize_from(),
                    " and ", observe_from());
  TORCH_CHECK_VALUE(freeze_observers_at().value_or(observe_from() + 1) > observe_from(), kSchedule,
                    ": freeze_observers_at must be after observe_from, got ", freeze_observers_at().value_or(0),
                    " and ", observe_from());
  TORCH_CHECK_VALUE(freeze_batch_norm_at().value_or(0) >= 0, kSchedule, ": freeze_batch_norm_at must be >= 0, got ",
                    freeze_batch_norm_at().value_or(0));
}

ScheduleState schedule_state(const ScheduleOptions& options, int64_t step) {
  options.check();
  const auto reached = [&](const std::optional<int64_t>& at) { return at && step >= *at; };
  return {step >= options.observe_from() && !reached(options.freeze_observers_at()), step >= options.quantize_from(),
          reached(options.freeze_batch_norm_at())};
}

QuantizationSchedule::QuantizationSchedule(std::shared_ptr<torch::nn::Module> module, const ScheduleOptions& options)
    : module_(std::move(module)), options_(options) {
  options_.check();
  apply(std::nullopt);
}

void QuantizationSchedule::step() {
  const ScheduleState before = schedule_state(options_, step_);
  ++step_;
  apply(before);
}

void QuantizationSchedule::apply(std::optional<ScheduleState> before) {
  const ScheduleState now = schedule_state(options_, step_);
  if (!before || before->observes != now.observes) {
    now.observes ? enable_observer(*module_) : disable_observer(*module_);
  }
  if (!before || before->rounds != now.rounds) {
    now.rounds ? enable_fake_quant(*module_) : disable_fake_quant(*module_);
  }
  if ((!before || before->freezes_batch_norm != now.freezes_batch_norm) && has_batch_norm(*module_)) {
    freeze_batch_norm(*module_, now.freezes_batch_norm);
  }
}

torch::OrderedDict<std::string, at::Tensor> QuantizationSchedule::state_dict() const {
  torch::OrderedDict<std::string, at::Tensor> state;
  state.insert("step", at::scalar_tensor(step_, at::kLong));
  return state;
}

void QuantizationSchedule::load_state_dict(const torch::OrderedDict<std::string, at::Tensor>& state) {
  TORCH_CHECK_VALUE(state.contains("step") && state["step"].numel() == 1 && state["step"].item<int64_t>() >= 0,
                    kSchedule, ": expected a state with a number of steps, `step`");
  step_ = state["step"].item<int64_t>();
  apply(std::nullopt);
}

}  // namespace torchslim::quant
