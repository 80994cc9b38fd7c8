// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/full.h>
#include <torchslim/quant/level_fake_quantize.h>
#include <torchslim/quant/level_fake_quantize_module.h>
#include <torchslim/quant/levels.h>

#include "quant/level_fake_quantize.h"
#include "quant/scale_table.h"

namespace torchslim::quant {

LevelFakeQuantizeImpl::LevelFakeQuantizeImpl(const LevelFakeQuantizeOptions& options) : options(options) {
  detail::check_levels(options.levels(), options.levels());
  detail::check_level_values(options.levels().detach().to(at::kCPU, at::kFloat).contiguous());
  detail::is_clipped("torchslim::LevelFakeQuantize", options.gradient());
  reset();
}

void LevelFakeQuantizeImpl::reset() {
  levels = register_buffer("levels", options.levels().detach().to(at::kFloat).clone());
  const std::vector<int64_t> shape(options.axis() ? 1 : 0, 0);
  scale = register_buffer("scale", at::full(shape, 1.0, levels.options()));
}

void LevelFakeQuantizeImpl::pretty_print(std::ostream& stream) const {
  stream << "torchslim::quant::LevelFakeQuantize(levels=" << levels.size(0);
  if (options.axis()) {
    stream << ", axis=" << *options.axis();
  }
  stream << ", gradient=" << options.gradient() << ")";
}

at::Tensor LevelFakeQuantizeImpl::forward(const at::Tensor& x) {
  return level_fake_quantize(x, levels, scale, options.axis(), options.gradient());
}

void LevelFakeQuantizeImpl::fit_scale(const at::Tensor& x) {
  scale.set_data(absmax_scale(x, levels.abs().max().item<double>(), options.axis()));
}

}  // namespace torchslim::quant
