// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/sensitivity.h>
#include <torchslim/quant/weight_grid.h>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <numeric>
#include <sstream>

#include "core/eval_mode.h"
#include "quant/weighted_layers.h"

namespace torchslim::quant {
namespace {

constexpr const char* kSensitivity = "torchslim::sensitivity";

/// Runs a prepared module in float while it lives.
class InFloat {
 public:
  explicit InFloat(torch::nn::Module& module) {
    module.apply([&](torch::nn::Module& each) {
      auto* quantizer = each.as<FakeQuantizeImpl>();
      if (quantizer != nullptr && quantizer->fake_quant_enabled.item<bool>()) {
        quantizer->disable_fake_quant();
        disabled_.push_back(quantizer);
      }
    });
  }
  ~InFloat() {
    for (FakeQuantizeImpl* quantizer : disabled_) {
      quantizer->enable_fake_quant();
    }
  }
  InFloat(const InFloat&) = delete;
  InFloat& operator=(const InFloat&) = delete;

 private:
  std::vector<FakeQuantizeImpl*> disabled_;
};

/// Holds another weight in a layer while it lives.
class OtherWeight {
 public:
  OtherWeight(const at::Tensor& weight, const at::Tensor& other) : weight_(weight), before_(weight.detach().clone()) {
    write(other);
  }
  ~OtherWeight() { write(before_); }
  OtherWeight(const OtherWeight&) = delete;
  OtherWeight& operator=(const OtherWeight&) = delete;

 private:
  void write(const at::Tensor& values) {
    const at::NoGradGuard no_grad;
    weight_.detach().copy_(values);
  }

  at::Tensor weight_;
  at::Tensor before_;
};

double checked(double value, const std::string& what) {
  TORCH_CHECK_VALUE(std::isfinite(value), kSensitivity, ": evaluate returned ", value, " with ", what,
                    "; the loss overflows or the model is broken");
  return value;
}

int64_t macs_of(const std::string& layer, const std::vector<graph::LayerCount>& counts) {
  int64_t macs = 0;
  for (const auto& count : counts) {
    macs += count.weight == layer + ".weight" ? count.macs : 0;
  }
  return macs;
}

std::string padded(const std::string& text, size_t width) {
  return text.size() < width ? text + std::string(width - text.size(), ' ') : text;
}

}  // namespace

Sensitivity sensitivity(torch::nn::Module& module, const std::function<double(torch::nn::Module&)>& evaluate,
                        const SensitivityOptions& options) {
  TORCH_CHECK_VALUE(!options.bits().empty(), kSensitivity, ": bits must name one width or more");
  for (const int64_t bits : options.bits()) {
    WeightGridOptions().bits(bits).scale_search(options.scale_search()).check(kSensitivity);
  }
  const auto layers = detail::weighted_layers(kSensitivity, module);
  const int64_t calls = 1 + static_cast<int64_t>(layers.size() * options.bits().size());
  const core::EvalMode eval(module);
  const InFloat in_float(module);
  int64_t done = 0;
  const auto report = [&] {
    ++done;
    if (options.progress()) {
      options.progress()(done, calls);
    }
  };
  Sensitivity result{options.bits(), options.higher_is_better(), checked(evaluate(module), "all layers in float"), {}};
  report();
  for (const auto& layer : layers) {
    LayerSensitivity row{
        layer.name, layer.weight.numel(), layer.weight.size(0), macs_of(layer.name, options.counts()), {}};
    for (const int64_t bits : options.bits()) {
      const auto grid = WeightGridOptions().bits(bits).scale_search(options.scale_search());
      const OtherWeight rounded(layer.weight, round_weight(layer.weight, grid).weight);
      const auto what = "layer `" + layer.name + "` of " + std::to_string(bits) + " bits";
      row.values.push_back(checked(evaluate(module), what));
      report();
    }
    result.layers.push_back(std::move(row));
  }
  return result;
}

std::string to_string(const Sensitivity& sensitivity) {
  std::vector<size_t> order(sensitivity.layers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t fewest = std::min_element(sensitivity.bits.begin(), sensitivity.bits.end()) - sensitivity.bits.begin();
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sensitivity.damage(a, fewest) > sensitivity.damage(b, fewest); });
  size_t width = 5;
  for (const auto& row : sensitivity.layers) {
    width = std::max(width, row.layer.size());
  }
  std::ostringstream out;
  out << padded("layer", width) << "    weights";
  for (const int64_t bits : sensitivity.bits) {
    out << std::setw(7) << bits << " bits";
  }
  out << "\n"
      << padded("(all in float)", width) << "           " << std::setw(12) << std::setprecision(5)
      << sensitivity.baseline << "\n";
  for (const size_t i : order) {
    const auto& row = sensitivity.layers[i];
    out << padded(row.layer, width) << std::setw(11) << row.weights;
    for (const double value : row.values) {
      out << std::setw(12) << std::setprecision(5) << value;
    }
    out << "\n";
  }
  return out.str();
}

}  // namespace torchslim::quant
