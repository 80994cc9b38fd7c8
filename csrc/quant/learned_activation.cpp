// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/TracerMode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/relu6.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/learned_activation.h>
#include <torchslim/quant/learned_modules.h>

#include <algorithm>

namespace torchslim::quant {
namespace {

constexpr const char* kLearnedActivation = "torchslim::LearnedActivation";

LearnedRangeOptions range_of(int64_t low, int64_t high) { return LearnedRangeOptions().quant_min(low).quant_max(high); }

}  // namespace

std::vector<std::string> LearnedActivationOptions::quantizers() { return {"lsq", "lsq+", "pact", "tqt", "range"}; }

LearnedActivationImpl::LearnedActivationImpl(const LearnedActivationOptions& options)
    : torch::nn::Module("torchslim::quant::LearnedActivation"), options(options) {
  const std::string& name = options.quantizer();
  const std::string& activation = options.activation();
  const auto names = LearnedActivationOptions::quantizers();
  TORCH_CHECK_VALUE(std::find(names.begin(), names.end(), name) != names.end(), kLearnedActivation,
                    ": quantizer must be one of ", c10::Join(", ", names), ", got `", name, "`");
  TORCH_CHECK_VALUE(activation == "none" || activation == "relu" || activation == "relu6", kLearnedActivation,
                    ": activation must be `none`, `relu` or `relu6`, got `", activation, "`");
  TORCH_CHECK_VALUE(options.bits() >= 1 && options.bits() <= 8, kLearnedActivation, ": bits must be in [1, 8], got ",
                    options.bits());
  TORCH_CHECK_VALUE(name != "pact" || activation != "none", kLearnedActivation,
                    ": `pact` clips at 0, so it goes only behind a ReLU");
  const int64_t codes = int64_t{1} << options.bits();
  const bool from_zero = (name == "lsq" || name == "tqt") && activation != "none";
  low_ = from_zero ? 0 : -codes / 2;
  high_ = low_ + codes - 1;
  shift_ = high_ > 127 ? low_ + 128 : 0;
  if (name == "lsq" || name == "lsq+") {
    grad_scale_ = "features";
    hold(LearnedFakeQuantize(LearnedFakeQuantizeOptions()
                                 .quant_min(low_)
                                 .quant_max(high_)
                                 .symmetric(name == "lsq")
                                 .grad_scale(grad_scale_)));
  } else if (name == "pact") {
    hold(Pact(range_of(low_, high_)));
  } else if (name == "tqt") {
    hold(TrainedThreshold(range_of(low_, high_)));
  } else {
    hold(TrainableRange(range_of(low_, high_)));
  }
  observer_enabled = register_buffer("observer_enabled", at::ones({1}, at::kByte));
  fake_quant_enabled = register_buffer("fake_quant_enabled", at::ones({1}, at::kByte));
}

template <typename Holder>
void LearnedActivationImpl::hold(Holder learned) {
  register_module("learned", learned);
  learned_qparams_ = [learned] { return learned->qparams(); };
  initialize_ = [learned](const at::Tensor& x) mutable { learned->initialize(x); };
  initialized_ = learned->initialized;
}

void LearnedActivationImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::LearnedActivation(quantizer=" << options.quantizer() << ", bits=" << options.bits()
         << ", activation=" << options.activation() << ")";
}

bool LearnedActivationImpl::has_grid() const { return detail::learned_flag(initialized_); }

void LearnedActivationImpl::enable_observer(bool enabled) { observer_enabled.fill_(static_cast<int64_t>(enabled)); }

void LearnedActivationImpl::enable_fake_quant(bool enabled) { fake_quant_enabled.fill_(static_cast<int64_t>(enabled)); }

at::Tensor LearnedActivationImpl::activated(const at::Tensor& x) const {
  return options.activation() == "none" ? x : options.activation() == "relu" ? at::relu(x) : at::relu6(x);
}

std::tuple<at::Tensor, at::Tensor> LearnedActivationImpl::qparams() const {
  const auto [scale, zero_point] = learned_qparams_();
  const at::Tensor value = scale.detach();
  return {scale + (value.clamp_min(kMinScale) - value), zero_point};
}

GridTensors LearnedActivationImpl::grid() const {
  const at::tracer::impl::NoTracerDispatchMode untraced;
  const at::AutoGradMode no_grad(false);
  const auto [scale, zero_point] = qparams();
  return {scale.to(at::kFloat), rounded_zero_point(zero_point, low_, high_) - shift_};
}

at::Tensor LearnedActivationImpl::forward(const at::Tensor& x) {
  const at::Tensor y = activated(x);
  const bool observes = detail::learned_flag(observer_enabled);
  const bool rounds = detail::learned_flag(fake_quant_enabled);
  if (at::tracer::impl::is_dispatch_enabled()) {
    const GridTensors constant = rounds ? grid() : GridTensors();
    return rounds ? fake_quantize(y, constant.scale, constant.zero_point, quant_min(), quant_max()) : y;
  }
  if (is_training() && observes && !(rounds && has_grid())) {
    initialize_(y);
  }
  if (!rounds) {
    if (tap_) {
      tap_(y);
    }
    return y;
  }
  TORCH_CHECK_VALUE(has_grid(), kLearnedActivation, ": the grid has no values yet; run a batch in training mode first");
  const auto [scale, zero_point] = qparams();
  return learned_fake_quantize(y, observes ? scale : scale.detach(), observes ? zero_point : zero_point.detach(), low_,
                               high_, std::nullopt, grad_scale_, options.quantizer() == "pact" ? "clip" : "rounded");
}

}  // namespace torchslim::quant
