// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/zeros.h>
#include <torchslim/quant/correct_bias.h>

#include "quant/layer_walk.h"

namespace torchslim::quant {
namespace {

constexpr const char* kCorrectBias = "torchslim::quant::correct_bias";

// Returns the sum over all but the channels of an output (N, O, ...), float64 (O).
at::Tensor channel_sums(const at::Tensor& output) { return output.to(at::kDouble).transpose(0, 1).flatten(1).sum(1); }

// Adds to the output, behind the batch norm; returns whether the layer has what takes it.
bool add_to_output(const WalkedLayer& layer, const at::Tensor& offset) {
  if (layer.batch_norm && layer.batch_norm->beta.defined()) {
    at::Tensor(layer.batch_norm->beta).add_(offset);
    return true;
  }
  const auto factor = layer.factor();
  if (!layer.bias.defined() || (factor == 0).any().item<bool>()) {
    return false;
  }
  at::Tensor(layer.bias).add_(offset / factor);
  return true;
}

}  // namespace

std::vector<std::string> correct_bias(const RunnableModule& model, const Batches& batches, const Progress& progress,
                                      const torch::nn::Module* reference) {
  LayerWalk walk(kCorrectBias, model, batches, reference);
  const auto total = static_cast<int64_t>(walk.layers().size());
  std::vector<std::string> left;
  int64_t done = 0;
  for (const WalkedLayer& layer : walk.layers()) {
    auto difference = at::zeros({layer.weight.size(0)}, at::kDouble);
    int64_t outputs = 0;
    walk.for_each_batch(layer, [&](const LayerValues& rounded, const LayerValues& in_float) {
      difference += channel_sums(in_float.output) - channel_sums(rounded.output);
      outputs += rounded.output.numel() / rounded.output.size(1);
    });
    if (!add_to_output(layer, (difference / outputs).to(layer.weight.scalar_type()))) {
      left.push_back(layer.name);
    }
    if (progress) {
      progress(++done, total);
    }
  }
  walk.keep();
  return left;
}

}  // namespace torchslim::quant
