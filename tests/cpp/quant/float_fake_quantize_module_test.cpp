// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/float_fake_quantize.h>
#include <torchslim/quant/float_fake_quantize_module.h>
#include <torchslim/quant/levels.h>

#include <sstream>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("FloatFakeQuantize: rounds to its format at its scale", "[quant][FloatFakeQuantize]") {
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(1));
  FloatFakeQuantize module(FloatFakeQuantizeOptions(FloatFormat::e4m3fn()).axis(axis));
  const auto x = at::randn({3, 8});
  module->fit_scale(x);
  CHECK(at::equal(module->scale, absmax_scale(x, 448, axis)));
  CHECK(at::equal(module->forward(x), float_fake_quantize(x, FloatFormat::e4m3fn(), module->scale, axis)));
}

TEST_CASE("FloatFakeQuantize: saved, loaded and cloned state", "[quant][FloatFakeQuantize]") {
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(0));
  const auto options = FloatFakeQuantizeOptions(FloatFormat::e5m2()).axis(axis);
  FloatFakeQuantize module(options);
  const auto x = at::randn({3, 8});
  module->fit_scale(x);
  std::stringstream stream;
  torch::save(module, stream);
  FloatFakeQuantize loaded(options);
  torch::load(loaded, stream);
  CHECK(at::equal(loaded->forward(x), module->forward(x)));
  const auto twin = std::dynamic_pointer_cast<FloatFakeQuantizeImpl>(module->clone());
  CHECK(at::equal(twin->forward(x), module->forward(x)));
  twin->fit_scale(x * 2);
  CHECK_FALSE(at::equal(twin->scale, module->scale));
}

TEST_CASE("FloatFakeQuantize: bad options are refused", "[quant][FloatFakeQuantize]") {
  CHECK_THROWS_WITH(FloatFakeQuantize(FloatFakeQuantizeOptions({9, 0, 0, "none"})),
                    ContainsSubstring("exponent_bits must be in [0, 8]"));
  CHECK_THROWS_WITH(FloatFakeQuantize(FloatFakeQuantizeOptions(FloatFormat::e5m2()).gradient("none")),
                    ContainsSubstring("got `none`"));
}

TEST_CASE("FloatFakeQuantize: says what it is", "[quant][FloatFakeQuantize]") {
  std::ostringstream text;
  text << FloatFakeQuantize(FloatFakeQuantizeOptions(FloatFormat::e4m3fn()).axis(0));
  CHECK(text.str() ==
        "torchslim::quant::FloatFakeQuantize(e4m3, bias=7, specials=nan, saturate=true, axis=0, gradient=clipped)");
}
