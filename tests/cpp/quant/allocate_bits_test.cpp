// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/quant/allocate_bits.h>

#include <limits>
#include <random>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

namespace {

// Two layers with 2, 4 and 8 bits; a layer of 10 weights and one of 100.
std::vector<LayerChoices> two_layers() {
  return {{"small", {{20, 5.0}, {40, 1.0}, {80, 0.0}}}, {"large", {{200, 6.0}, {400, 2.0}, {800, 0.5}}}};
}

// Calls `visit` with every combination of choices.
template <typename Visit>
void for_each_combination(const std::vector<LayerChoices>& layers, const Visit& visit) {
  std::vector<int64_t> choice(layers.size(), 0);
  while (true) {
    int64_t cost = 0;
    double damage = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      cost += layers[i].choices[choice[i]].cost;
      damage += layers[i].choices[choice[i]].damage;
    }
    visit(cost, damage);
    size_t i = 0;
    while (i < layers.size() && ++choice[i] == static_cast<int64_t>(layers[i].choices.size())) {
      choice[i++] = 0;
    }
    if (i == layers.size()) {
      return;
    }
  }
}

}  // namespace

TEST_CASE("allocate_bits: the least damage within the budget", "[quant][allocate_bits]") {
  const auto found = allocate_bits(two_layers(), 450);
  CHECK(found.choice == std::vector<int64_t>{1, 1});
  CHECK(found.cost == 440);
  CHECK(found.damage == 3.0);
  CHECK(found.bound <= found.damage);
  CHECK(allocate_bits(two_layers(), 880).damage == 0.5);
  CHECK(allocate_bits(two_layers(), 220).damage == 11.0);
}

TEST_CASE("allocate_bits_within: the least cost for the damage", "[quant][allocate_bits]") {
  const auto found = allocate_bits_within(two_layers(), 3.5);
  CHECK(found.choice == std::vector<int64_t>{1, 1});
  CHECK(found.cost == 440);
  CHECK(found.bound <= 440);
  CHECK(allocate_bits_within(two_layers(), 100.0).cost == 220);
}

TEST_CASE("allocate_bits: as good as trying every combination", "[quant][allocate_bits]") {
  std::mt19937 random(0);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<LayerChoices> layers(5);
    for (auto& layer : layers) {
      for (int i = 0; i < 4; ++i) {
        layer.choices.push_back({static_cast<int64_t>(random() % 30), static_cast<double>(random() % 100) / 7 - 2});
      }
    }
    int64_t least_cost = std::numeric_limits<int64_t>::max();
    for_each_combination(layers, [&](int64_t cost, double) { least_cost = std::min(least_cost, cost); });
    const int64_t budget = least_cost + static_cast<int64_t>(random() % 40);
    double best = std::numeric_limits<double>::infinity();
    for_each_combination(layers,
                         [&](int64_t cost, double damage) { best = cost <= budget ? std::min(best, damage) : best; });
    const auto exact = allocate_bits(layers, budget);
    CHECK(exact.damage == best);
    CHECK(exact.cost <= budget);
    CHECK(exact.bound <= best + 1e-9);
    const auto greedy = allocate_bits(layers, budget, BitSearch::kGreedy);
    CHECK(greedy.cost <= budget);
    CHECK(greedy.damage >= best);
    const auto cheapest = allocate_bits_within(layers, best);
    int64_t least = std::numeric_limits<int64_t>::max();
    for_each_combination(layers,
                         [&](int64_t cost, double damage) { least = damage <= best ? std::min(least, cost) : least; });
    CHECK(cheapest.cost == least);
    CHECK(cheapest.damage <= best);
  }
}

TEST_CASE("allocate_bits: 200 layers of 7 widths are solved at once", "[quant][allocate_bits]") {
  std::mt19937 random(1);
  std::vector<LayerChoices> layers(200);
  int64_t least = 0, most = 0;
  for (auto& layer : layers) {
    const auto weights = static_cast<int64_t>(1000 + random() % 1000000);
    const double harm = static_cast<double>(random() % 1000) / 1000;
    for (int64_t bits = 2; bits <= 8; ++bits) {
      layer.choices.push_back({weights * bits / 8, harm / static_cast<double>(int64_t{1} << (2 * bits))});
    }
    least += layer.choices.front().cost;
    most += layer.choices.back().cost;
  }
  const auto found = allocate_bits(layers, (least + most) / 2);
  CHECK(found.damage >= found.bound);
  CHECK(found.damage <= found.bound * 1.001);
}

TEST_CASE("pareto_front: no corner is beaten", "[quant][allocate_bits]") {
  const auto layers = two_layers();
  const auto front = pareto_front(layers);
  REQUIRE(front.size() == 5);
  CHECK(front.front().cost == 220);
  CHECK(front.back().damage == 0.5);
  for (const auto& corner : front) {
    for_each_combination(layers, [&](int64_t cost, double damage) {
      const bool beaten =
          cost <= corner.cost && damage <= corner.damage && (cost < corner.cost || damage < corner.damage);
      CHECK_FALSE(beaten);
    });
  }
}

TEST_CASE("allocate_bits: refusals name the layer and what can be had", "[quant][allocate_bits]") {
  CHECK_THROWS_WITH(allocate_bits(two_layers(), 219),
                    ContainsSubstring("a budget of 219 is too small: the cheapest choices cost 220"));
  CHECK_THROWS_WITH(allocate_bits_within(two_layers(), 0.4), ContainsSubstring("the best choices come to 0.5"));
  CHECK_THROWS_WITH(allocate_bits({}, 1), ContainsSubstring("expected one layer or more"));
  CHECK_THROWS_WITH(allocate_bits({{"a", {}}}, 1), ContainsSubstring("layer `a` has no choice"));
  CHECK_THROWS_WITH(allocate_bits({{"a", {{-1, 0}}}}, 1), ContainsSubstring("cost must be >= 0, got -1"));
  CHECK_THROWS_WITH(allocate_bits({{"a", {{1, NAN}}}}, 1), ContainsSubstring("damage must be finite"));
  CHECK_THROWS_WITH(allocate_bits({{"a", {{int64_t{1} << 53, 0}}}}, 1), ContainsSubstring("below 2^53"));
}
