// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/calibrate.h>
#include <torchslim/quant/fake_quantize_module.h>

#include "core/eval_mode.h"
#include "quant/saved_state.h"

namespace torchslim::quant {
namespace {

constexpr const char* kCalibrate = "torchslim::quant::calibrate";

}  // namespace

void calibrate(const RunnableModule& model, const Batches& batches, const Progress& progress) {
  const at::NoGradGuard no_grad;
  const core::EvalMode eval(model.module);
  detail::SavedState before;
  bool found = false;
  model.module.apply([&](torch::nn::Module& child) {
    auto* quantizer = child.as<FakeQuantizeImpl>();
    if (quantizer != nullptr && quantizer->observer_enabled.item<bool>()) {
      before.add(*quantizer);
      quantizer->train();
      found = true;
    }
  });
  TORCH_CHECK_VALUE(found, kCalibrate,
                    ": no quantiser of the module observes; call quant::prepare first, and quant::enable_observer");
  batches.for_each(kCalibrate, [&](const at::Tensor& batch) { model.forward(batch); }, progress);
  before.keep();
}

}  // namespace torchslim::quant
