// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/learned_activation.h>

#include <utility>
#include <vector>

namespace torchslim::quant::detail {

/// Keeps the activations of a prepared module from being rounded, for its life.
class WithoutRounding {
 public:
  explicit WithoutRounding(torch::nn::Module& module) {
    module.apply([&](torch::nn::Module& child) {
      if (auto* quantizer = child.as<FakeQuantizeImpl>()) {
        switch_off(*quantizer);
      } else if (auto* learned = child.as<LearnedActivationImpl>()) {
        switch_off(*learned);
      }
    });
  }
  WithoutRounding(const WithoutRounding&) = delete;
  WithoutRounding& operator=(const WithoutRounding&) = delete;
  ~WithoutRounding() {
    for (const auto& [flag, value] : switched_) {
      flag.copy_(value);
    }
  }

 private:
  template <typename Quantizer>
  void switch_off(Quantizer& quantizer) {
    switched_.emplace_back(quantizer.fake_quant_enabled, quantizer.fake_quant_enabled.clone());
    quantizer.enable_fake_quant(false);
  }

  std::vector<std::pair<at::Tensor, at::Tensor>> switched_;  // a flag, its value
};

}  // namespace torchslim::quant::detail
