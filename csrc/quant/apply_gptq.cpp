// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/apply_gptq.h>
#include <torchslim/quant/hessian.h>

#include "quant/layer_walk.h"

namespace torchslim::quant {
namespace {

constexpr const char* kApplyGptq = "torchslim::quant::apply_gptq";

}  // namespace

void apply_gptq(const RunnableModule& model, const Batches& batches, const GptqOptions& options,
                const Progress& progress) {
  LayerWalk walk(kApplyGptq, model, batches);
  walk.check_bits(options.bits());
  const auto total = static_cast<int64_t>(walk.layers().size());
  int64_t done = 0;
  for (const WalkedLayer& layer : walk.layers()) {
    HessianAccumulator hessian(layer.weight.sizes(), layer.geometry);
    walk.for_each_batch(layer, [&](const LayerValues& rounded, const LayerValues& in_float) {
      hessian.add(rounded.input, in_float.input);
    });
    const auto own = GptqOptions(options).bits(LayerWalk::bits_of(layer, options.bits()));
    walk.put_weight(layer, gptq(layer.weight, hessian.hessian(), own, hessian.drift()));
    if (progress) {
      progress(++done, total);
    }
  }
  walk.keep();
}

}  // namespace torchslim::quant
