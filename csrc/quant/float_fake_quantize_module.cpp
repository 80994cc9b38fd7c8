// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/full.h>
#include <torchslim/quant/float_fake_quantize.h>
#include <torchslim/quant/float_fake_quantize_module.h>
#include <torchslim/quant/levels.h>

#include "quant/float_format.h"
#include "quant/scale_table.h"

namespace torchslim::quant {

FloatFakeQuantizeImpl::FloatFakeQuantizeImpl(const FloatFakeQuantizeOptions& options) : options(options) {
  detail::check_format("torchslim::FloatFakeQuantize", options.format());
  detail::is_clipped("torchslim::FloatFakeQuantize", options.gradient());
  reset();
}

void FloatFakeQuantizeImpl::reset() {
  const std::vector<int64_t> shape(options.axis() ? 1 : 0, 0);
  scale = register_buffer("scale", at::full(shape, 1.0));
}

void FloatFakeQuantizeImpl::pretty_print(std::ostream& stream) const {
  const auto& format = options.format();
  stream << "torchslim::quant::FloatFakeQuantize(e" << format.exponent_bits << "m" << format.mantissa_bits
         << ", bias=" << format.bias << ", specials=" << format.specials
         << ", saturate=" << (format.saturate ? "true" : "false");
  if (options.axis()) {
    stream << ", axis=" << *options.axis();
  }
  stream << ", gradient=" << options.gradient() << ")";
}

at::Tensor FloatFakeQuantizeImpl::forward(const at::Tensor& x) {
  return float_fake_quantize(x, options.format(), scale, options.axis(), options.gradient());
}

void FloatFakeQuantizeImpl::fit_scale(const at::Tensor& x) {
  scale.set_data(absmax_scale(x, options.format().max(), options.axis()));
}

}  // namespace torchslim::quant
