// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/level_fake_quantize.h>
#include <torchslim/quant/level_fake_quantize_module.h>
#include <torchslim/quant/levels.h>

#include <sstream>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("LevelFakeQuantize: rounds to its levels at its scale", "[quant][LevelFakeQuantize]") {
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(1));
  LevelFakeQuantize module(LevelFakeQuantizeOptions(apot_levels(4)).axis(axis));
  const auto x = at::randn({3, 8});
  module->fit_scale(x);
  CHECK(at::equal(module->scale, absmax_scale(x, 1.0, axis)));
  CHECK(at::equal(module->forward(x), level_fake_quantize(x, apot_levels(4), module->scale, axis)));
}

TEST_CASE("LevelFakeQuantize: saved, loaded and cloned state", "[quant][LevelFakeQuantize]") {
  const auto axis = GENERATE(std::optional<int64_t>(), std::optional<int64_t>(0));
  LevelFakeQuantize module(LevelFakeQuantizeOptions(apot_levels(4)).axis(axis));
  const auto x = at::randn({3, 8});
  module->fit_scale(x);
  std::stringstream stream;
  torch::save(module, stream);
  LevelFakeQuantize loaded(LevelFakeQuantizeOptions(apot_levels(3)).axis(axis));
  torch::load(loaded, stream);
  CHECK(at::equal(loaded->forward(x), module->forward(x)));
  const auto twin = std::dynamic_pointer_cast<LevelFakeQuantizeImpl>(module->clone());
  CHECK(at::equal(twin->forward(x), module->forward(x)));
  twin->fit_scale(x * 2);
  CHECK_FALSE(at::equal(twin->scale, module->scale));
}

TEST_CASE("LevelFakeQuantize: bad options are refused", "[quant][LevelFakeQuantize]") {
  CHECK_THROWS_WITH(LevelFakeQuantize(LevelFakeQuantizeOptions(at::tensor({1.0f, 0.0f}))),
                    ContainsSubstring("levels must ascend strictly"));
  CHECK_THROWS_WITH(LevelFakeQuantize(LevelFakeQuantizeOptions(apot_levels(4)).gradient("none")),
                    ContainsSubstring("got `none`"));
}

TEST_CASE("LevelFakeQuantize: says what it is", "[quant][LevelFakeQuantize]") {
  std::ostringstream text;
  text << LevelFakeQuantize(LevelFakeQuantizeOptions(apot_levels(4)).axis(0));
  CHECK(text.str() == "torchslim::quant::LevelFakeQuantize(levels=15, axis=0, gradient=clipped)");
}
