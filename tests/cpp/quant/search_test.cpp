// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/search.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

namespace {

// An accuracy of 0.9, a small layer that suffers and a large one that does not.
Sensitivity example() {
  return {{2, 4, 8}, true, 0.9, {{"first", 100, 4, 1000, {0.5, 0.85, 0.9}}, {"last", 1000, 10, 500, {0.8, 0.89, 0.9}}}};
}

}  // namespace

TEST_CASE("search: within bytes, multiplications or accuracy", "[quant][search]") {
  const auto by_bytes = search(example(), SearchOptions().bytes(700));
  CHECK(by_bytes.layers[0].layer == "first");
  CHECK(by_bytes.layers[0].bits == 8);
  CHECK(by_bytes.layers[1].bits == 4);
  CHECK(by_bytes.bytes == 100 + 500 + 4 * 14);
  CHECK(by_bytes.mac_bits == (1000 * 8 + 500 * 4) * 8);
  CHECK(by_bytes.predicted == Approx(0.89));
  CHECK(by_bytes.bound >= by_bytes.predicted);

  const auto by_macs = search(example(), SearchOptions().mac_bits((1000 * 4 + 500 * 8) * 8));
  CHECK(by_macs.layers[0].bits == 4);
  CHECK(by_macs.layers[1].bits == 8);

  const auto by_floor = search(example(), SearchOptions().floor(0.889));
  CHECK(by_floor.bytes == by_bytes.bytes);
  CHECK(by_floor.bound <= static_cast<double>(by_floor.bytes));
}

TEST_CASE("search: a loss is made least too", "[quant][search]") {
  Sensitivity loss{{4, 8}, false, 1.0, {{"a", 8, 1, 1, {1.5, 1.0}}, {"b", 8, 1, 1, {3.0, 1.1}}}};
  const auto plan = search(loss, SearchOptions().bytes(4 + 8 + 8));
  CHECK(plan.layers[0].bits == 4);
  CHECK(plan.layers[1].bits == 8);
  CHECK(plan.predicted == Approx(1.6));
  CHECK(search(loss, SearchOptions().floor(1.7)).predicted == Approx(1.6));
}

TEST_CASE("search_front: from the fewest bytes to the best prediction", "[quant][search]") {
  const auto front = search_front(example());
  CHECK(front.front().layers[0].bits == 2);
  CHECK(front.back().predicted == Approx(0.9));
  for (size_t i = 1; i < front.size(); ++i) {
    CHECK(front[i].bytes > front[i - 1].bytes);
    CHECK(front[i].predicted > front[i - 1].predicted);
  }
}

TEST_CASE("search: refusals say what can be had", "[quant][search]") {
  CHECK_THROWS_WITH(search(example(), SearchOptions()), ContainsSubstring("expected one limit"));
  CHECK_THROWS_WITH(search(example(), SearchOptions().bytes(1).floor(0.5)), ContainsSubstring("got 2"));
  CHECK_THROWS_WITH(search(example(), SearchOptions().bytes(10)), ContainsSubstring("the cheapest choices cost 331"));
  auto uncounted = example();
  uncounted.layers[1].macs = 0;
  CHECK_THROWS_WITH(search(uncounted, SearchOptions().mac_bits(1)),
                    ContainsSubstring("the multiplications of layer `last` were not counted"));
}
