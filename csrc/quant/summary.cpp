// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/learned_activation.h>
#include <torchslim/quant/prepared_graph.h>
#include <torchslim/quant/summary.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/graph_layers.h"

namespace torchslim::quant {
namespace {

constexpr const char* kGridError = "torchslim::grid_error";

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

SummaryRow activation_row(const std::string& layer, const FakeQuantizeImpl& quantizer) {
  const std::string grid = quantizer.options.symmetric() ? "fake_quantize symmetric" : "fake_quantize";
  SummaryRow row{layer, "activation", grid, quantizer.options.bits(), {}, {}, {}, {}};
  if (quantizer.min_val.numel() > 0 && quantizer.min_val.isfinite().all().item<bool>()) {
    set_scale(row, quantizer.scale);
  }
  return row;
}

SummaryRow activation_row(const std::string& layer, const LearnedActivationImpl& quantizer) {
  SummaryRow row{layer, "activation", quantizer.options.quantizer(), quantizer.options.bits(), {}, {}, {}, {}};
  if (quantizer.has_grid()) {
    set_scale(row, quantizer.grid().scale);
  }
  return row;
}

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

}  // namespace

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

std::vector<SummaryRow> summary(torch::nn::Module& module) {
  std::vector<SummaryRow> rows;
  for_each_weight_layer(module, [&](const std::string& name, const QuantWeightLayer& layer, const at::Tensor& weight) {
    if (layer.is_prepared()) {
      rows.push_back(weight_row(name, weight, layer.weight_fake_quantize()));
    }
  });
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    if (const auto* quantizer = item.value()->as<FakeQuantizeImpl>()) {
      rows.push_back(activation_row(layer_of(item.key()), *quantizer));
    } else if (const auto* learned = item.value()->as<LearnedActivationImpl>()) {
      rows.push_back(activation_row(layer_of(item.key()), *learned));
    }
  }
  TORCH_CHECK_VALUE(!rows.empty(),
                    "torchslim::quant::summary: the module holds no quantiser; call quant::prepare first");
  return rows;
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
