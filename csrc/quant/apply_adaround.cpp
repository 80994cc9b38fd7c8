// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/quant/apply_adaround.h>

#include <limits>

#include "quant/layer_walk.h"
#include "quant/weight_grid.h"

namespace torchslim::quant {
namespace {

constexpr const char* kApplyAdaround = "torchslim::quant::apply_adaround";

// Rounds `layer` with its batch norm in the weight and bias, as its activation stands behind that.
GridWeight rounded_layer(const WalkedLayer& layer, const LayerSamples& samples, const AdaroundOptions& options,
                         const Progress& progress) {
  const auto grid = detail::grid_options(options.bits(), options.scale_search());
  const auto scale = weight_scale(layer.weight, grid);
  const auto factor = layer.factor();
  const auto dims = layer.weight.dim();
  const auto folded_scale = (scale * factor.abs()).clamp_min(std::numeric_limits<float>::min());
  const GridWeight folded = adaround(layer.weight * detail::over_channels(factor, dims), layer.folded_bias(), samples,
                                     AdaroundOptions(options).activation(layer.activation), folded_scale, progress);
  // The codes of f·w are those of w, with the sign of f; where f is 0 nothing was learned.
  const auto unfolded = folded.codes * detail::over_channels(factor.sign().to(at::kChar), dims);
  const auto nearest = round_weight(layer.weight, grid, scale).codes;
  const auto codes = unfolded.where(detail::over_channels(factor != 0, dims), nearest);
  return detail::weight_of_codes(codes, scale, layer.weight);
}

}  // namespace

void apply_adaround(const RunnableModule& model, const Batches& batches, const AdaroundOptions& options,
                    int64_t max_bytes, const Progress& progress) {
  TORCH_CHECK_VALUE(options.activation() == "none", kApplyAdaround,
                    ": leave `activation` alone, it is each layer's own; got `", options.activation(), "`");
  LayerWalk walk(kApplyAdaround, model, batches);
  walk.check_bits(options.bits());
  const auto total = static_cast<int64_t>(walk.layers().size()) * options.iterations();
  int64_t done = 0;
  for (const WalkedLayer& layer : walk.layers()) {
    LayerSamples samples(layer.weight.sizes(), layer.geometry, max_bytes, static_cast<uint64_t>(options.seed()));
    walk.for_each_batch(layer, [&](const LayerValues& rounded, const LayerValues& in_float) {
      samples.add(rounded.input, in_float.output);
    });
    const auto hear = [&](int64_t steps, int64_t) { progress(done + steps, total); };
    const auto own = AdaroundOptions(options).bits(LayerWalk::bits_of(layer, options.bits()));
    walk.put_weight(layer, rounded_layer(layer, samples, own, progress ? Progress(hear) : Progress()));
    done += options.iterations();
  }
  walk.keep();
}

}  // namespace torchslim::quant
