// SPDX-License-Identifier: BSD-3-Clause
#include <torch/serialize.h>
#include <torchslim/quant/histogram_range.h>
#include <torchslim/quant/observe_histogram.h>
#include <torchslim/quant/observe_range.h>
#include <torchslim/quant/observers.h>

#include <cmath>
#include <limits>
#include <map>
#include <sstream>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using namespace torchslim::quant;

namespace {

constexpr double kObserverInf = std::numeric_limits<double>::infinity();
constexpr double kObserverNan = std::numeric_limits<double>::quiet_NaN();

struct HistogramState {
  at::Tensor histogram, min_val, max_val;

  bool operator==(const HistogramState& o) const {
    return at::equal(histogram, o.histogram) && at::equal(min_val, o.min_val) && at::equal(max_val, o.max_val);
  }
};

HistogramState unseen(std::vector<int64_t> shape, int64_t bins) {
  const auto low = at::full(shape, kObserverInf);
  shape.push_back(bins);
  return {at::zeros(shape, at::kLong), low, low.neg()};
}

HistogramState seen_by(const at::Tensor& x, int64_t bins) {
  const auto state = unseen({}, bins);
  observe_histogram(x, state.histogram, state.min_val, state.max_val);
  return state;
}

template <typename Module>
Module observing(const at::Tensor& x, const ObserverOptions& options = {}) {
  Module observer(options);
  observer->forward(x);
  return observer;
}

}  // namespace

TEMPLATE_TEST_CASE("observe_range: the range of amin and amax, in every type", "[quant][observers]", float, double,
                   c10::BFloat16, c10::Half) {
  const auto x = at::randn({6, 20, 35}).to(c10::CppTypeToScalarType<TestType>::value);
  at::set_num_threads(GENERATE(1, 2));
  SECTION("one range") {
    const auto state = unseen({}, 2);
    observe_range(x, state.min_val, state.max_val);
    CHECK(at::equal(state.min_val, x.min().to(at::kFloat)));
    CHECK(at::equal(state.max_val, x.max().to(at::kFloat)));
  }
  SECTION("one for each channel") {
    const int64_t axis = GENERATE(0, 1, 2, -1);
    const auto y = GENERATE(true, false) ? x : x.transpose(0, 2);
    const auto state = unseen({y.size(axis)}, 2);
    observe_range(y, state.min_val, state.max_val, axis);
    CHECK(at::equal(state.min_val, y.movedim(axis, 0).flatten(1).amin(1).to(at::kFloat)));
    CHECK(at::equal(state.max_val, y.movedim(axis, 0).flatten(1).amax(1).to(at::kFloat)));
  }
  SECTION("one for each group") {
    const auto state = unseen({6, 4, 35}, 2);
    observe_range(x, state.min_val, state.max_val, 1, 5);
    CHECK(at::equal(state.min_val, x.view({6, 4, 5, 35}).amin(2).to(at::kFloat)));
    CHECK(at::equal(state.max_val, x.view({6, 4, 5, 35}).amax(2).to(at::kFloat)));
  }
}

TEST_CASE("observe_range: the range widens, or follows", "[quant][observers]") {
  const auto state = unseen({2}, 2);
  observe_range(at::tensor({-1.0, 2.0, 3.0, 4.0}).view({2, 2}), state.min_val, state.max_val, 0, std::nullopt, 0.25,
                false);
  observe_range(at::tensor({-2.0, 1.0, 3.0, 8.0}).view({2, 2}), state.min_val, state.max_val, 0, std::nullopt, 0.25,
                false);
  CHECK(at::equal(state.min_val, at::tensor({-1.25, 3.0}, at::kFloat)));
  CHECK(at::equal(state.max_val, at::tensor({1.75, 5.0}, at::kFloat)));
  observe_range(at::tensor({-9.0, 1.0, 4.0, 4.0}).view({2, 2}), state.min_val, state.max_val, 0);
  CHECK(at::equal(state.min_val, at::tensor({-9.0, 3.0}, at::kFloat)));
}

TEST_CASE("observe_histogram: counts every value once, in bins of a power of two", "[quant][observers]") {
  const auto state = seen_by(at::tensor({-0.3f, 0.0f, 0.1f, 0.3f, 1.6f}), 8);
  CHECK(at::equal(state.histogram, at::tensor({1, 3, 0, 0, 1, 0, 0, 0}, at::kLong)));  // 1/2 wide, from -1/2 on
  observe_histogram(at::tensor({3.6f}), state.histogram, state.min_val, state.max_val);
  CHECK(at::equal(state.histogram, at::tensor({1, 3, 1, 0, 1, 0, 0, 0}, at::kLong)));  // 1 wide, from -1 on
}

TEMPLATE_TEST_CASE("observe_histogram: the order of the data, threads and instruction sets do not matter",
                   "[quant][observers]", float, double, c10::BFloat16, c10::Half) {
  using torchslim::core::CpuCapability;
  const auto dtype = c10::CppTypeToScalarType<TestType>::value;
  const auto x = at::cat({at::randn({300001}), at::randn({1003}) * 50, at::zeros({70000})}).to(dtype);
  const HistogramState whole = seen_by(x, 512);
  CHECK(at::equal(whole.histogram.sum(), at::full({}, x.numel(), at::kLong)));
  const HistogramState parts = unseen({}, 512);
  for (const auto& part : {x.slice(0, 300000), x.slice(0, 0, 7), x.slice(0, 7, 300000)}) {
    observe_histogram(part, parts.histogram, parts.min_val, parts.max_val);
  }
  CHECK(whole == parts);
  at::set_num_threads(1);
  CHECK(whole == seen_by(x, 512));
  at::set_num_threads(2);
  torchslim::core::force_cpu_capability(CpuCapability::kPortable);
  CHECK(whole == seen_by(x, 512));
  torchslim::core::force_cpu_capability(std::nullopt);
}

TEST_CASE("observe_histogram: channels and groups are rows of their own", "[quant][observers]") {
  const auto x = at::randn({4, 6, 70}) * at::arange(1, 7).view({6, 1});
  const bool grouped = GENERATE(false, true);
  const auto shape = grouped ? std::vector<int64_t>{4, 3, 70} : std::vector<int64_t>{6};
  const auto state = unseen(shape, 64);
  observe_histogram(x, state.histogram, state.min_val, state.max_val, 1,
                    grouped ? std::optional<int64_t>(2) : std::nullopt);
  const auto rows = grouped ? x.view({4, 3, 2, 70}).transpose(2, 3).reshape({-1, 2}) : x.transpose(0, 1).flatten(1);
  for (int64_t row = 0; row < rows.size(0); ++row) {
    const auto alone = seen_by(rows[row], 64);
    CHECK(at::equal(state.histogram.view({-1, 64})[row], alone.histogram));
  }
}

TEST_CASE("observe_histogram: extremes of float32", "[quant][observers]") {
  constexpr float kMost = std::numeric_limits<float>::max(), kLeast = std::numeric_limits<float>::denorm_min();
  for (const auto& x : {at::tensor({-kMost, kMost, 0.0f, kLeast, -kLeast}), at::tensor({kLeast, 3 * kLeast, -kLeast}),
                        at::tensor({1e30f, 1e30f, 1e30f}), at::zeros({3}), at::tensor({16777216.0f, 16777218.0f}),
                        at::tensor({-1.0f, -1.0f})}) {
    const auto state = seen_by(x, 64);
    CHECK(state.histogram.sum().item<int64_t>() == x.numel());
    CHECK(state.max_val.item<float>() == x.max().item<float>());
    observe_histogram(at::tensor({-1e38f, 1e38f}), state.histogram, state.min_val, state.max_val);
    CHECK(state.histogram.sum().item<int64_t>() == x.numel() + 2);
  }
}

TEST_CASE("observers: NaN and infinity are refused, whole, or skipped by choice", "[quant][observers]") {
  const double bad = std::vector<double>{kObserverNan, kObserverInf, -kObserverInf}[GENERATE(0, 1, 2)];
  auto x = at::tensor({1.0, 0.0, -2.0, 4.0, 5.0, 6.0}, at::kFloat).view({2, 3});
  x[0][1] = bad;
  const auto axis = GENERATE(false, true) ? std::optional<int64_t>(0) : std::nullopt;
  SECTION("refused") {
    HistogramObserver observer(ObserverOptions().axis(axis));
    CHECK_THROWS_WITH(observer->forward(x), Catch::Contains("holds NaN or infinity") && Catch::Contains("unchanged"));
    CHECK(observer->min_val.numel() == (axis ? 0 : 1));
    observer->forward(at::ones({2, 3}));
    const auto before = observer->histogram.clone();
    CHECK_THROWS_AS(observer->forward(x), c10::ValueError);
    CHECK(at::equal(observer->histogram, before));
    MinMaxObserver range(ObserverOptions().axis(axis));
    CHECK_THROWS_AS(range->forward(x), c10::ValueError);
    CHECK(range->min_val.numel() == (axis ? 0 : 1));
  }
  SECTION("skipped") {
    const auto options = ObserverOptions().axis(axis).non_finite("skip");
    const auto histogram = observing<HistogramObserver>(x, options);
    CHECK(histogram->histogram.sum().item<int64_t>() == 5);
    CHECK(histogram->min_val.min().item<float>() == -2);
    CHECK(observing<MinMaxObserver>(x, options)->max_val.max().item<float>() == 6);
  }
  SECTION("a row without any finite value stays unseen") {
    const auto options = ObserverOptions().axis(0).non_finite("skip");
    x[0].fill_(bad);
    const auto observer = observing<HistogramObserver>(x, options);
    CHECK(std::isinf(observer->min_val[0].item<float>()));
    CHECK(observer->max_val[1].item<float>() == 6);
    CHECK_THROWS_WITH(observer->calculate_qparams(), Catch::Contains("no range has been observed"));
  }
}

TEST_CASE("observers: grids of normal data with an outlier", "[quant][observers]") {
  at::manual_seed(0);
  const auto x = at::cat({at::randn({100000}), at::tensor({60.0f})});
  CHECK(observing<MinMaxObserver>(x)->calculate_range().max_val.item<float>() == 60);
  for (const auto& range :
       {observing<HistogramObserver>(x)->calculate_range(), observing<PercentileObserver>(x)->calculate_range(),
        observing<MseObserver>(x, ObserverOptions().bits(4))->calculate_range(),
        observing<EntropyObserver>(x)->calculate_range()}) {
    CHECK(range.max_val.item<float>() > 1.5);
    CHECK(range.max_val.item<float>() < 20);
    CHECK(range.min_val.item<float>() < -1.5);
  }
}

TEST_CASE("observers: state can be reset, cloned, saved and loaded", "[quant][observers]") {
  const auto axis = GENERATE(false, true) ? std::optional<int64_t>(1) : std::nullopt;
  auto observer = observing<HistogramObserver>(at::randn({5, 3}), ObserverOptions().axis(axis).bins(32));
  const auto scale = observer->calculate_qparams().scale;
  const auto copy = std::dynamic_pointer_cast<HistogramObserverImpl>(observer->clone());
  CHECK(at::equal(copy->histogram, observer->histogram));
  std::stringstream file;
  torch::save(observer, file);
  HistogramObserver loaded(ObserverOptions().axis(axis).bins(32));
  torch::load(loaded, file);
  CHECK(at::equal(loaded->calculate_qparams().scale, scale));
  observer->reset_state();
  CHECK_THROWS_AS(observer->calculate_qparams(), c10::ValueError);
  CHECK(at::equal(copy->calculate_qparams().scale, scale));
  observer->forward(at::randn({2, 7}));
  CHECK(observer->min_val.numel() == (axis ? 7 : 1));
  CHECK(observer->named_buffers()["histogram"].sum().item<int64_t>() == 14);
}

TEST_CASE("observers: forward returns x itself, and its gradient", "[quant][observers]") {
  const auto x = at::randn({4}).requires_grad_();
  MovingAverageObserver observer;
  const auto y = observer->forward(x);
  CHECK(y.is_same(x));
  y.sum().backward();
  CHECK(at::equal(x.grad(), at::ones({4})));
}

TEST_CASE("observers: refusals", "[quant][observers]") {
  const auto message = [](const ObserverOptions& options) -> std::string {
    try {
      MinMaxObserver observer(options);
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "";
  };
  CHECK_THAT(message(ObserverOptions().bits(17)),
             Catch::Contains("torchslim::MinMaxObserver: bits must be in [1, 16], got 17"));
  CHECK_THAT(message(ObserverOptions().bits(1).symmetric(true)), Catch::Contains("one point"));
  CHECK_THAT(message(ObserverOptions().quant_min(3)), Catch::Contains("got only quant_min"));
  CHECK_THAT(message(ObserverOptions().quant_min(3).quant_max(2)), Catch::Contains("the range is empty"));
  CHECK_THAT(message(ObserverOptions().non_finite("drop")), Catch::Contains("got `drop`"));
  CHECK_THAT(message(ObserverOptions().group_size(4)), Catch::Contains("needs `axis`"));
  CHECK_THAT(message(ObserverOptions().averaging_constant(0)), Catch::Contains("(0, 1], got 0"));
  CHECK_THAT(message(ObserverOptions().bins(1)), Catch::Contains("bins must be in [2, 1048576], got 1"));
  CHECK_THAT(message(ObserverOptions().percentile(50)), Catch::Contains("(50, 100], got 50"));
  MinMaxObserver grouped(ObserverOptions().axis(1).group_size(3));
  CHECK_THROWS_WITH(grouped->forward(at::ones({2, 8})),
                    Catch::Contains("group_size must divide dimension 1 of size 8, got 3"));
  CHECK_THROWS_WITH(observing<MinMaxObserver>(at::ones({3}), ObserverOptions().axis(1)),
                    Catch::Contains("axis must be in [-1, 0]"));
  CHECK_THROWS_AS(observing<MinMaxObserver>(at::ones({3}, at::kInt)), c10::TypeError);
  auto channels = observing<MinMaxObserver>(at::ones({3, 2}), ObserverOptions().axis(0));
  CHECK_THROWS_WITH(channels->forward(at::ones({4, 2})), Catch::Contains("min_val must have shape [4], got shape [3]"));
}
