// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/prune/channel_plan.h>

#include "cpp/catch.hpp"

using namespace torchslim::prune;

namespace {

ChannelPlan example_plan() {
  ChannelChain chain{"features.0.conv", 4, {"features.0.bn"}, {}, {{"features.1", 1, false}, {"head", 9, true}}};
  return {{{chain, {0, 3}}}};
}

}  // namespace

TEST_CASE("channel plan: JSON reads back to the same plan", "[prune][channel_plan_json]") {
  const auto json = to_json(example_plan());
  CHECK(json ==
        "{\"format\": \"torchslim.channel_plan\", \"version\": 1, \"cuts\": [\n"
        "  {\"layer\": \"features.0.conv\", \"channels\": 4, \"keep\": [0, 3],\n"
        "   \"batch_norms\": [\"features.0.bn\"], \"depthwise\": [],\n"
        "   \"consumers\": [{\"layer\": \"features.1\", \"kind\": \"conv2d\", \"repeat\": 1}, "
        "{\"layer\": \"head\", \"kind\": \"linear\", \"repeat\": 9}]}]}");
  CHECK(to_json(channel_plan_from_json(json)) == json);
  CHECK(channel_plan_from_json(to_json({})).cuts.empty());
}

TEST_CASE("channel plan: every truncation is refused", "[prune][channel_plan_json]") {
  const auto json = to_json(example_plan());
  for (size_t length = 0; length < json.size(); ++length) {
    CHECK_THROWS_AS(channel_plan_from_json(json.substr(0, length)), c10::ValueError);
  }
}

TEST_CASE("channel plan: other JSON is refused and says where", "[prune][channel_plan_json]") {
  const auto with = [](const std::string& from, const std::string& to) {
    auto json = to_json(example_plan());
    return json.replace(json.find(from), from.size(), to);
  };
  CHECK_THROWS_WITH(channel_plan_from_json(with("version\": 1", "version\": 2")),
                    ContainsSubstring("expected version 1, got 2"));
  CHECK_THROWS_WITH(channel_plan_from_json(with("[0, 3]", "[3, 0]")), ContainsSubstring("filters must ascend"));
  CHECK_THROWS_WITH(channel_plan_from_json(with("[0, 3]", "[0, 4]")), ContainsSubstring("4 is not below channels 4"));
  CHECK_THROWS_WITH(channel_plan_from_json(with("[0, 3]", "[0, -3]")), ContainsSubstring("expected a whole number"));
  CHECK_THROWS_WITH(channel_plan_from_json(with("[0, 3]", "[99999999999999999999]")),
                    ContainsSubstring("a number is too large"));
  CHECK_THROWS_WITH(channel_plan_from_json(with("\"repeat\": 9", "\"repeat\": 0")),
                    ContainsSubstring("repeat must be >= 1"));
  CHECK_THROWS_WITH(channel_plan_from_json(with("\"keep\"", "\"channels\"")),
                    ContainsSubstring("unknown or repeated field `channels`"));
  CHECK_THROWS_WITH(channel_plan_from_json(with("\"features.0.bn\"", "\"a\\u0041\"")),
                    ContainsSubstring("holds an escape"));
}
