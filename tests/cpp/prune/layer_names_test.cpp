// SPDX-License-Identifier: BSD-3-Clause
#include "prune/layer_names.h"

#include <c10/util/Exception.h>

#include "cpp/catch.hpp"

using torchslim::prune::detail::select_layers;
using Names = std::vector<std::string>;

TEST_CASE("select_layers: a module's name stands for the layers under it", "[prune][layer_names]") {
  const Names layers = {"stem", "blocks.1.conv", "blocks.10.conv", "head"};
  CHECK(select_layers("f", layers, {}, {}) == layers);
  CHECK(select_layers("f", layers, {"blocks.1"}, {}) == Names{"blocks.1.conv"});
  CHECK(select_layers("f", layers, {}, {"blocks", "head"}) == Names{"stem"});
}

TEST_CASE("select_layers: an unknown name is refused with the nearest", "[prune][layer_names]") {
  CHECK_THROWS_WITH(select_layers("f", {"stem", "blocks.1.conv", "head"}, {}, {"block"}),
                    ContainsSubstring("exclude: no layer that can be pruned is called `block`") &&
                        ContainsSubstring("nearest: `blocks`"));
  CHECK_THROWS_AS(select_layers("f", {}, {}, {}), c10::ValueError);
}
