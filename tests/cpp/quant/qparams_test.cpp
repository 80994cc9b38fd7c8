// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/qparams.h>

#include <cmath>
#include <limits>

#include "cpp/catch.hpp"

using torchslim::quant::choose_qparams;
using torchslim::quant::weight_qparams;

TEST_CASE("choose_qparams: hand-worked ranges", "[quant][qparams]") {
  struct Row {
    double min, max;
    bool symmetric;
    float scale;
    int32_t zero_point;
  };
  const auto row = GENERATE(Row{-1.0, 1.55, false, 0.01f, -28},       //
                            Row{0.0, 2.55, false, 0.01f, -128},       // all of the grid above 0
                            Row{1.0, 2.55, false, 0.01f, -128},       // widened to hold 0
                            Row{-2.55, -1.0, false, 0.01f, 127},      //
                            Row{-1.27, 0.5, true, 0.01f, 0},          //
                            Row{0.0, 0.0, false, 1.0f / 4096, -128},  // the smallest scale
                            Row{0.0, 0.0, true, 1.0f / 4096, 0});
  const auto grid = choose_qparams(row.min, row.max, -128, 127, row.symmetric);
  CHECK(grid.scale == row.scale);
  CHECK(grid.zero_point == row.zero_point);
}

TEST_CASE("choose_qparams: tensors are ranges one by one", "[quant][qparams]") {
  const auto low = at::tensor({-1.0f, 0.0f, -3.0f});
  const auto high = at::tensor({1.0f, 2.0f, -1.0f});
  const auto grids = choose_qparams(low, high, -128, 127, false);
  for (int64_t c = 0; c < 3; ++c) {
    const auto grid = choose_qparams(low[c].item<double>(), high[c].item<double>(), -128, 127, false);
    CHECK(grids.scale[c].item<float>() == grid.scale);
    CHECK(grids.zero_point[c].item<int32_t>() == grid.zero_point);
  }
}

TEST_CASE("choose_qparams: what is no range is refused", "[quant][qparams]") {
  const double inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(choose_qparams(inf, -inf, -128, 127, false), ContainsSubstring("no range has been observed yet"));
  CHECK_THROWS_WITH(choose_qparams(0.0, inf, -128, 127, false), ContainsSubstring("must be finite, got [0, inf]"));
  CHECK_THROWS_WITH(choose_qparams(2.0, 1.0, -128, 127, false), ContainsSubstring("got 2 and 1"));
  CHECK_THROWS_AS(choose_qparams(0.0, 1.0, 3, 3, false), c10::ValueError);
}

TEST_CASE("weight_qparams: the largest weight is the last code", "[quant][qparams]") {
  auto weight = at::randn({5, 3, 3, 3});
  weight[3].zero_();
  const auto grid = weight_qparams(weight);
  CHECK(grid.scale[3].item<float>() == 1.0f);
  CHECK(at::equal(grid.zero_point, at::zeros({5}, at::kInt)));
  const auto rounded = torchslim::quant::fake_quantize(weight, grid.scale, grid.zero_point, -127, 127, 0);
  CHECK(at::allclose(rounded.abs().amax({1, 2, 3}), weight.abs().amax({1, 2, 3})));
  weight[2][0][0][0] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(weight_qparams(weight), ContainsSubstring("NaN or infinity in channel 2"));
}

TEST_CASE("channel_qparams: no lowest scale, and 1 where all is 0", "[quant][qparams]") {
  const auto grid = torchslim::quant::channel_qparams(at::tensor({-1.27e-6, 0.0}), at::zeros({2}), -127, 127, true);
  CHECK(at::allclose(grid.scale, at::tensor({1e-8f, 1.0f}), 1e-6, 0));
  CHECK(at::equal(grid.zero_point, at::zeros({2}, at::kInt)));
}

TEST_CASE("update_qparams: writes the grids of what was seen and leaves the others", "[quant][qparams]") {
  constexpr float kUnseen = std::numeric_limits<float>::infinity();
  const bool per_channel = GENERATE(false, true);
  const auto low = at::tensor({-1.0f, kUnseen, -1e-6f}), high = at::tensor({1.0f, -kUnseen, 0.0f});
  const auto scale = at::full({3}, 7.0), zero_point = at::full({3}, 3, at::kInt);
  torchslim::quant::update_qparams(low, high, scale, zero_point, -128, 127, false, per_channel);
  const auto choose = [&](double min, double max) {
    const auto pair = at::tensor({min, max}, at::kFloat);
    return per_channel ? torchslim::quant::channel_qparams(pair[0], pair[1], -128, 127, false)
                       : choose_qparams(pair[0], pair[1], -128, 127, false);
  };
  CHECK(at::equal(scale[0], choose(-1, 1).scale));
  CHECK(at::equal(zero_point[2], choose(-1e-6, 0).zero_point));
  CHECK(scale[1].item<float>() == 7);
  CHECK(zero_point[1].item<int32_t>() == 3);
}

TEST_CASE("update_qparams: a broken range, or a tensor that does not fit, changes nothing", "[quant][qparams]") {
  const auto low = at::tensor({-1.0f, std::nanf("")}), high = at::ones({2});
  const auto scale = at::full({2}, 7.0), zero_point = at::full({2}, 3, at::kInt);
  const auto update = [&](const at::Tensor& min_val, const at::Tensor& grid_scale) {
    torchslim::quant::update_qparams(min_val, high, grid_scale, zero_point, -8, 7, false, true);
  };
  CHECK_THROWS_WITH(update(low, scale), ContainsSubstring("torchslim::update_qparams: min_val and max_val must be "
                                                          "finite and in order where something was seen, got nan"));
  CHECK_THROWS_WITH(update(-high, at::ones({3})), ContainsSubstring("scale must have shape [2], got shape [3]"));
  CHECK_THROWS_AS(update(-high.to(at::kDouble), scale), c10::TypeError);
  CHECK(at::equal(scale, at::full({2}, 7.0)));
  CHECK(at::equal(zero_point, at::full({2}, 3, at::kInt)));
}

TEST_CASE("qparams: tensors on different devices are refused by name", "[quant][qparams]") {
  const auto here = at::ones({2}), there = at::ones({2}, at::kMeta);
  CHECK_THROWS_WITH(choose_qparams(here, there, -8, 7, false),
                    ContainsSubstring("max_val must be on the input's device cpu, got meta; move it with to()"));
  CHECK_THROWS_WITH(torchslim::quant::fake_quantize(here, there, at::zeros({2}, at::kInt), -8, 7, 0),
                    ContainsSubstring("torchslim::fake_quantize: scale must be on the input's device cpu, got meta"));
}
