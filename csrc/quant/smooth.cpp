// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/where.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torchslim/quant/smooth.h>

#include <map>

#include "core/eval_mode.h"
#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr const char* kSmoothScale = "torchslim::quant::smooth_scale";
constexpr const char* kApplySmooth = "torchslim::quant::apply_smooth_scale";
constexpr const char* kSmooth = "torchslim::quant::smooth";

void check_weights(const char* who, const std::vector<at::Tensor>& weights, int64_t channels) {
  TORCH_CHECK_VALUE(!weights.empty(), who, ": expected the weight of one layer at least");
  for (const at::Tensor& weight : weights) {
    detail::check_input(who, weight);
    TORCH_CHECK_VALUE(weight.dim() == 2 && weight.size(1) == channels && weight.size(0) > 0, who,
                      ": expected weights of shape (O, ", channels, "), got ", weight.sizes());
  }
}

// What a group's layers are in a module.
struct SmoothLayers {
  at::Tensor before, before_bias;
  std::vector<at::Tensor> weights;
  at::Tensor input_max;
};

// Shows the two factors of each product of matrices that runs, for as long as it lives: C++ modules have no hooks, and
// torch::nn::Linear calls addmm or matmul with the transposed weight.
class ProductWatch {
 public:
  using Use = std::function<void(const at::Tensor& input, const at::Tensor& weight)>;

  explicit ProductWatch(const Use& use) {
    current = &use;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&look).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }
  ProductWatch(const ProductWatch&) = delete;
  ProductWatch& operator=(const ProductWatch&) = delete;
  ~ProductWatch() { at::removeCallback(handle_); }

 private:
  static std::unique_ptr<at::ObserverContext> look(const at::RecordFunction& call) {
    const std::string_view name = call.name();
    const auto inputs = call.inputs();
    if (name == "aten::addmm" && inputs.size() >= 3) {
      (*current)(inputs[1].toTensor(), inputs[2].toTensor());
    } else if ((name == "aten::matmul" || name == "aten::linear") && inputs.size() >= 2) {
      (*current)(inputs[0].toTensor(), inputs[1].toTensor());
    }
    return nullptr;
  }

  static thread_local const Use* current;
  at::CallbackHandle handle_ = 0;
};
thread_local const ProductWatch::Use* ProductWatch::current = nullptr;

torch::nn::Module* module_of(torch::nn::Module& root, const std::string& name) {
  for (const auto& item : root.named_modules()) {
    if (item.key() == name) {
      return item.value().get();
    }
  }
  TORCH_CHECK_VALUE(false, kSmooth, ": the module holds no `", name, "`");
}

SmoothLayers layers_of(torch::nn::Module& root, const SmoothGroup& group) {
  SmoothLayers layers;
  torch::nn::Module* before = module_of(root, group.before);
  if (const auto* norm = before->as<torch::nn::LayerNormImpl>()) {
    TORCH_CHECK_VALUE(norm->weight.defined() && norm->weight.dim() == 1, kSmooth, ": LayerNorm `", group.before,
                      "` must have a weight over one dimension, to take the scale");
    layers.before = norm->weight;
    layers.before_bias = norm->bias;
  } else if (const auto* linear = dynamic_cast<torch::nn::LinearImpl*>(before)) {
    layers.before = linear->weight;
    layers.before_bias = linear->bias;
  } else {
    TORCH_CHECK_VALUE(false, kSmooth, ": `", group.before, "` must be a LayerNorm or linear layer, got ",
                      before->name());
  }
  for (const std::string& name : group.after) {
    const auto* linear = dynamic_cast<torch::nn::LinearImpl*>(module_of(root, name));
    TORCH_CHECK_VALUE(linear != nullptr, kSmooth, ": `", name, "`, behind `", group.before,
                      "`, must be a linear layer");
    layers.weights.push_back(linear->weight);
  }
  check_weights(kSmooth, layers.weights, layers.before.size(0));
  return layers;
}

}  // namespace

at::Tensor smooth_scale(const at::Tensor& input_max, const std::vector<at::Tensor>& weights, double alpha) {
  detail::check_input(kSmoothScale, input_max);
  TORCH_CHECK_VALUE(input_max.dim() == 1 && input_max.numel() > 0, kSmoothScale,
                    ": input_max must have shape (I), got ", input_max.sizes());
  TORCH_CHECK_VALUE(alpha >= 0 && alpha <= 1, kSmoothScale, ": alpha must be in [0, 1], got ", alpha);
  check_weights(kSmoothScale, weights, input_max.numel());
  const auto x = input_max.detach().to(at::kDouble);
  TORCH_CHECK_VALUE((x.isfinite() & (x >= 0)).all().item<bool>(), kSmoothScale, ": input_max must be >= 0 and finite");
  auto w = at::zeros_like(x);
  for (const at::Tensor& weight : weights) {
    TORCH_CHECK_VALUE(weight.detach().isfinite().all().item<bool>(), kSmoothScale, ": a weight holds NaN or infinity");
    w = at::maximum(w, weight.detach().to(at::kDouble).abs().amax(0));
  }
  const auto scale = x.pow(alpha) / w.pow(1 - alpha);
  return scale.masked_fill((x == 0) | (w == 0), 1).to(at::kFloat);
}

void apply_smooth_scale(const at::Tensor& scale, const at::Tensor& before, const at::Tensor& before_bias,
                        const std::vector<at::Tensor>& weights) {
  const at::NoGradGuard no_grad;
  detail::check_input(kApplySmooth, scale);
  const int64_t channels = scale.numel();
  TORCH_CHECK_VALUE(scale.dim() == 1 && (scale.isfinite() & (scale > 0)).all().item<bool>(), kApplySmooth,
                    ": scale must have shape (I) and be > 0 and finite");
  TORCH_CHECK_VALUE(before.dim() >= 1 && before.size(0) == channels, kApplySmooth, ": what comes before must have ",
                    channels, " rows, got shape ", before.sizes());
  TORCH_CHECK_VALUE(!before_bias.defined() || before_bias.numel() == channels, kApplySmooth,
                    ": the bias of what comes before must have shape [", channels, "], got ", before_bias.sizes());
  check_weights(kApplySmooth, weights, channels);
  std::vector<int64_t> rows(before.dim(), 1);
  rows[0] = channels;
  at::Tensor(before).div_(scale.view(rows));
  if (before_bias.defined()) {
    at::Tensor(before_bias).div_(scale);
  }
  for (const at::Tensor& weight : weights) {
    at::Tensor(weight).mul_(scale);
  }
}

std::vector<at::Tensor> smooth(const RunnableModule& model, const Batches& batches,
                               const std::vector<SmoothGroup>& groups, double alpha, const Progress& progress) {
  TORCH_CHECK_VALUE(!groups.empty(), kSmooth, ": expected one group at least");
  const at::NoGradGuard no_grad;
  const core::EvalMode eval(model.module);
  std::vector<SmoothLayers> found;
  for (const SmoothGroup& group : groups) {
    found.push_back(layers_of(model.module, group));
  }
  const ProductWatch::Use look = [&](const at::Tensor& input, const at::Tensor& weight) {
    for (SmoothLayers& layers : found) {
      if (weight.is_alias_of(layers.weights.front())) {
        const auto seen = input.abs().reshape({-1, input.size(-1)}).amax(0);
        layers.input_max = layers.input_max.defined() ? at::maximum(layers.input_max, seen) : seen;
      }
    }
  };
  batches.for_each(
      kSmooth,
      [&](const at::Tensor& batch) {
        const ProductWatch watch(look);
        model.forward(batch);
      },
      progress);
  std::vector<at::Tensor> scales;
  for (size_t i = 0; i < found.size(); ++i) {
    TORCH_CHECK_VALUE(found[i].input_max.defined(), kSmooth, ": forward does not run `", groups[i].after.front(), "`");
    scales.push_back(smooth_scale(found[i].input_max, found[i].weights, alpha));
  }
  for (size_t i = 0; i < found.size(); ++i) {
    apply_smooth_scale(scales[i], found[i].before, found[i].before_bias, found[i].weights);
  }
  return scales;
}

}  // namespace torchslim::quant
