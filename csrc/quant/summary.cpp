// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/learned_activation.h>
#include <torchslim/quant/prepared_graph.h>
#include <torchslim/quant/summary.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "core/eval_mode.h"
#include "quant/graph_layers.h"
#include "quant/without_rounding.h"

namespace torchslim::quant {
namespace {

constexpr const char* kGridError = "torchslim::grid_error";
constexpr const char* kSummary = "torchslim::quant::summary";

std::string number_or_dash(const std::optional<double>& value, const char* form) {
  return value ? fmt::format(fmt::runtime(form), *value) : "-";
}

std::string scale_range(const SummaryRow& row) {
  if (!row.smallest_scale) {
    return "-";
  }
  const std::string low = fmt::format("{:.3g}", *row.smallest_scale);
  const std::string high = fmt::format("{:.3g}", row.largest_scale.value_or(*row.smallest_scale));
  return low == high ? low : low + " to " + high;
}

void set_scale(SummaryRow& row, const at::Tensor& scale) {
  if (scale.defined()) {
    row.smallest_scale = scale.min().item<double>();
    row.largest_scale = scale.max().item<double>();
  }
}

SummaryRow weight_row(const std::string& layer, const at::Tensor& weight, const WeightQuantizer& quantizer) {
  const at::AutoGradMode no_grad(false);
  SummaryRow row{layer, "weight", "fake_quantize", 8, {}, {}, {}, {}};
  RoundedWeight rounded;
  if (quantizer.is_empty()) {
    const auto [values, scale] = fake_quantize_weight(weight);
    rounded = {values, scale};
  } else {
    row.grid = quantizer->options.quantizer() + (quantizer->is_frozen() ? " frozen" : "");
    row.bits = quantizer->options.width();
    rounded = WeightQuantizer(quantizer)->forward(weight);
  }
  set_scale(row, rounded.scale);
  const GridError error = grid_error(weight, rounded.weight, rounded.scale);
  if (rounded.scale.defined()) {
    row.saturated = error.saturated;
  }
  row.sqnr = error.sqnr;
  return row;
}

bool has_grid(const FakeQuantizeImpl& quantizer) {
  return quantizer.min_val.numel() > 0 && quantizer.min_val.isfinite().all().item<bool>();
}

bool has_grid(const LearnedActivationImpl& quantizer) { return quantizer.has_grid(); }

SummaryRow activation_row(const std::string& layer, const FakeQuantizeImpl& quantizer) {
  const std::string grid = quantizer.options.symmetric() ? "fake_quantize symmetric" : "fake_quantize";
  SummaryRow row{layer, "activation", grid, quantizer.options.bits(), {}, {}, {}, {}};
  if (has_grid(quantizer)) {
    set_scale(row, quantizer.scale);
  }
  return row;
}

SummaryRow activation_row(const std::string& layer, const LearnedActivationImpl& quantizer) {
  SummaryRow row{layer, "activation", quantizer.options.quantizer(), quantizer.options.bits(), {}, {}, {}, {}};
  if (has_grid(quantizer)) {
    set_scale(row, quantizer.grid().scale);
  }
  return row;
}

/// Calls `visit(name, quantizer)` for each quantiser of an activation.
template <typename Visit>
void visit_quantizers(torch::nn::Module& module, const Visit& visit) {
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    if (auto* quantizer = item.value()->as<FakeQuantizeImpl>()) {
      visit(item.key(), *quantizer);
    } else if (auto* learned = item.value()->as<LearnedActivationImpl>()) {
      visit(item.key(), *learned);
    }
  }
}

GridTensors current_grid(const FakeQuantizeImpl& quantizer) { return {quantizer.scale, quantizer.zero_point}; }

GridTensors current_grid(const LearnedActivationImpl& quantizer) { return quantizer.grid(); }

/// The name of the layer that holds a quantiser, or of the quantiser.
std::string layer_of(const std::string& quantizer) {
  const std::string own = ".output_fake_quantize";
  return quantizer.ends_with(own) ? quantizer.substr(0, quantizer.size() - own.size()) : quantizer;
}

/// Calls `visit(name, layer, weight)` for each layer with a weight; `layer` is the drop-in layer.
template <typename Visit>
void for_each_weight_layer(torch::nn::Module& module, const Visit& visit) {
  const auto visit_one = [&](const std::string& name, torch::nn::Module& one) {
    if (auto* conv = one.as<ConvBnAct2dImpl>()) {
      visit(name.empty() ? "conv" : name + ".conv", *conv, conv->conv->weight);
    } else if (auto* linear = one.as<LinearImpl>()) {
      visit(name, *linear, linear->weight);
    } else if (auto* graph_layer = one.as<GraphLayerImpl>(); graph_layer != nullptr && !graph_layer->is_batch_norm()) {
      visit(name, *graph_layer, graph_layer->weight());
    }
  };
  visit_one("", module);  // by itself, as it may be on the stack
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    visit_one(item.key(), *item.value());
  }
}

/// Rows of what `module` holds; `errors` are of its activations, by the name of the quantiser.
std::vector<SummaryRow> summary_rows(torch::nn::Module& module, const std::map<std::string, GridError>& errors) {
  std::vector<SummaryRow> rows;
  for_each_weight_layer(module, [&](const std::string& name, const QuantWeightLayer& layer, const at::Tensor& weight) {
    if (layer.is_prepared()) {
      rows.push_back(weight_row(name, weight, layer.weight_fake_quantize()));
    }
  });
  const auto add = [&](const std::string& name, const auto& quantizer) {
    SummaryRow row = activation_row(layer_of(name), quantizer);
    if (const auto found = errors.find(name); found != errors.end()) {
      row.saturated = found->second.saturated;
      row.sqnr = found->second.sqnr;
    }
    rows.push_back(row);
  };
  visit_quantizers(module, add);
  TORCH_CHECK_VALUE(!rows.empty(), kSummary, ": the module holds no quantiser; call quant::prepare first");
  return rows;
}

}  // namespace

/// Listens to the quantisers of a module for its life, and tells what their rounding costs.
class ActivationErrors {
 public:
  /// Throws c10::ValueError if there is nothing to compare.
  explicit ActivationErrors(torch::nn::Module& module) {
    visit_quantizers(module, [](const std::string& name, auto& quantizer) {
      const bool rounds = quantizer.fake_quant_enabled.template item<bool>();
      TORCH_CHECK_VALUE(has_grid(quantizer) && rounds, kSummary, ": `", name, "` ",
                        rounds ? "has seen no data" : "is disabled",
                        ", so there is nothing to compare; run training forwards first");
    });
    visit_quantizers(module, [this](const std::string& name, auto& quantizer) {
      taps_.push_back(&quantizer.tap_);
      quantizer.tap_ = [this, name, &quantizer](const at::Tensor& x) {
        const GridTensors grid = current_grid(quantizer);
        const at::Tensor y =
            fake_quantize(x, grid.scale, grid.zero_point, quantizer.quant_min(), quantizer.quant_max());
        found_.insert_or_assign(name, grid_error(x.to(at::kFloat), y.to(at::kFloat), grid.scale));
      };
    });
  }
  ActivationErrors(const ActivationErrors&) = delete;
  ActivationErrors& operator=(const ActivationErrors&) = delete;
  ~ActivationErrors() {
    for (auto* tap : taps_) {
      *tap = nullptr;
    }
  }

  /// Runs the module in float, and returns the error of each quantiser's grid by its name.
  std::map<std::string, GridError> on(const RunnableModule& model, const at::Tensor& inputs) {
    const at::NoGradGuard no_grad;
    const core::EvalMode eval(model.module);
    const detail::WithoutRounding in_float(model.module);
    model.forward(inputs);
    return found_;
  }

 private:
  std::vector<std::function<void(const at::Tensor&)>*> taps_;
  std::map<std::string, GridError> found_;
};

GridError grid_error(const at::Tensor& x, const at::Tensor& rounded, const at::Tensor& scale) {
  TORCH_CHECK_VALUE(x.sizes() == rounded.sizes() && x.numel() > 0, kGridError,
                    ": expected two tensors of one shape, not empty, got ", x.sizes(), " and ", rounded.sizes());
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat && rounded.scalar_type() == at::kFloat, kGridError,
                    ": expected float32, got ", x.scalar_type(), " and ", rounded.scalar_type());
  const int64_t steps = scale.defined() ? scale.numel() : 0;
  TORCH_CHECK_VALUE(steps <= 1 || (x.dim() > 0 && steps == x.size(0)), kGridError, ": expected one scale, or ",
                    x.dim() > 0 ? x.size(0) : 1, ", got ", steps);
  const at::Tensor from = x.detach().to(at::kCPU).contiguous();
  const at::Tensor to = rounded.detach().to(at::kCPU).contiguous();
  const at::Tensor step = steps > 0 ? scale.detach().to(at::kCPU, at::kFloat).contiguous() : at::Tensor();
  const auto* a = from.const_data_ptr<float>();
  const auto* b = to.const_data_ptr<float>();
  constexpr double kHalf = 0.5 * (1 + 1e-5);  // an element half-way between two points is rounded, not cut off
  const int64_t rows = std::max<int64_t>(steps, 1);
  const int64_t size = x.numel() / rows;
  double signal = 0;
  double noise = 0;
  int64_t cut = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const double limit =
        steps > 0 ? kHalf * step.const_data_ptr<float>()[row] : std::numeric_limits<double>::infinity();
    for (int64_t i = row * size; i < (row + 1) * size; ++i) {
      const double error = static_cast<double>(a[i]) - b[i];
      signal += static_cast<double>(a[i]) * a[i];
      noise += error * error;
      cut += std::fabs(error) > limit ? 1 : 0;
    }
  }
  const double ratio = noise > 0 ? 10 * std::log10(signal / noise) : std::numeric_limits<double>::infinity();
  return {static_cast<double>(cut) / static_cast<double>(x.numel()), ratio};
}

std::vector<SummaryRow> summary(torch::nn::Module& module) { return summary_rows(module, {}); }

std::vector<SummaryRow> summary(const RunnableModule& model, const at::Tensor& inputs) {
  return summary_rows(model.module, ActivationErrors(model.module).on(model, inputs));
}

std::string to_string(const std::vector<SummaryRow>& rows) {
  size_t width = 5;
  size_t grid = 4;
  for (const SummaryRow& row : rows) {
    width = std::max(width, row.layer.size());
    grid = std::max(grid, row.grid.size());
  }
  std::string text = fmt::format("{:<{}}  {:<10}  {:<{}}  {:>4}  {:>22}  {:>9}  {:>8}\n", "layer", width, "tensor",
                                 "grid", grid, "bits", "scale", "saturated", "SQNR dB");
  for (const SummaryRow& row : rows) {
    std::optional<double> percent;
    if (row.saturated) {
      percent = *row.saturated * 100;
    }
    text += fmt::format("{:<{}}  {:<10}  {:<{}}  {:>4}  {:>22}  {:>9}  {:>8}\n", row.layer, width, row.tensor, row.grid,
                        grid, row.bits, scale_range(row), number_or_dash(percent, "{:.2f} %"),
                        number_or_dash(row.sqnr, "{:.1f}"));
  }
  return text;
}

std::vector<std::string> float_layers(torch::nn::Module& module) {
  if (const auto* graph = module.as<PreparedGraphImpl>()) {
    return graph->float_layers();
  }
  std::vector<std::string> names;
  for_each_weight_layer(module, [&](const std::string& name, const QuantWeightLayer& layer, const at::Tensor&) {
    if (!layer.is_prepared()) {
      names.push_back(name);
    }
  });
  return names;
}

}  // namespace torchslim::quant
