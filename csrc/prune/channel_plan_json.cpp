// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/prune/channel_plan.h>

#include <limits>
#include <set>
#include <string_view>
#include <utility>

namespace torchslim::prune {
namespace {

constexpr std::string_view kFormat = "torchslim.channel_plan";
constexpr int64_t kVersion = 1;

// Layer names are attribute names and dots: nothing in them needs an escape, and the reader refuses what does.
std::string in_quotes(std::string_view text) { return '"' + std::string(text) + '"'; }

template <typename Items, typename Format>
std::string list_of(const Items& items, const Format& format) {
  std::string json = "[";
  for (const auto& item : items) {
    json += (json.size() == 1 ? "" : ", ") + format(item);
  }
  return json + "]";
}

std::string format_consumer(const ChannelConsumer& consumer) {
  return "{\"layer\": " + in_quotes(consumer.layer) + ", \"kind\": " + (consumer.linear ? "\"linear\"" : "\"conv2d\"") +
         ", \"repeat\": " + std::to_string(consumer.repeat) + "}";
}

std::string format_cut(const ChannelCut& cut) {
  const auto number = [](int64_t value) { return std::to_string(value); };
  return "\n  {\"layer\": " + in_quotes(cut.chain.layer) + ", \"channels\": " + number(cut.chain.channels) +
         ", \"keep\": " + list_of(cut.keep, number) +
         ",\n   \"batch_norms\": " + list_of(cut.chain.batch_norms, in_quotes) +
         ", \"depthwise\": " + list_of(cut.chain.depthwise, in_quotes) +
         ",\n   \"consumers\": " + list_of(cut.chain.consumers, format_consumer) + "}";
}

// Reads the one form of JSON that a plan has; every other is refused with the byte where it differs.
class PlanReader {
 public:
  explicit PlanReader(std::string_view json) : json_(json) {}

  ChannelPlan read() {
    ChannelPlan plan;
    read_object({"format", "version", "cuts"}, [&](const std::string& key) {
      if (key == "format") {
        const auto format = read_text();
        check(format == kFormat, "expected the format `" + std::string(kFormat) + "`, got `" + format + "`");
      } else if (key == "version") {
        const auto version = read_number();
        check(version == kVersion, "expected version " + std::to_string(kVersion) + ", got " + std::to_string(version));
      } else {
        read_list([&] { plan.cuts.push_back(read_cut()); });
      }
    });
    skip_space();
    check(position_ == json_.size(), "text follows the closing brace");
    return plan;
  }

 private:
  ChannelCut read_cut() {
    ChannelCut cut;
    auto& chain = cut.chain;
    read_object({"layer", "channels", "keep", "batch_norms", "depthwise", "consumers"}, [&](const std::string& key) {
      if (key == "layer") {
        chain.layer = read_text();
      } else if (key == "channels") {
        chain.channels = read_number();
      } else if (key == "keep") {
        read_list([&] { cut.keep.push_back(read_number()); });
      } else if (key == "consumers") {
        read_list([&] { chain.consumers.push_back(read_consumer()); });
      } else {
        auto& layers = key == "batch_norms" ? chain.batch_norms : chain.depthwise;
        read_list([&] { layers.push_back(read_text()); });
      }
    });
    check_keep(cut);
    return cut;
  }

  ChannelConsumer read_consumer() {
    ChannelConsumer consumer;
    read_object({"layer", "kind", "repeat"}, [&](const std::string& key) {
      if (key == "layer") {
        consumer.layer = read_text();
      } else if (key == "repeat") {
        consumer.repeat = read_number();
        check(consumer.repeat >= 1 && consumer.repeat < std::numeric_limits<int32_t>::max(), "repeat must be >= 1");
      } else {
        const auto kind = read_text();
        check(kind == "conv2d" || kind == "linear", "kind must be `conv2d` or `linear`, got `" + kind + "`");
        consumer.linear = kind == "linear";
      }
    });
    return consumer;
  }

  void check_keep(const ChannelCut& cut) const {
    const auto where = "in `keep` of `" + cut.chain.layer + "`: ";
    check(!cut.keep.empty(), where + "at least one filter must stay");
    for (size_t i = 0; i < cut.keep.size(); ++i) {
      check(cut.keep[i] < cut.chain.channels,
            where + std::to_string(cut.keep[i]) + " is not below channels " + std::to_string(cut.chain.channels));
      check(i == 0 || cut.keep[i] > cut.keep[i - 1], where + "filters must ascend");
    }
  }

  // Calls `member(key)` before each value; it reads the value. Every key must come, once, in any order.
  template <typename Member>
  void read_object(std::set<std::string> keys, const Member& member) {
    expect('{');
    do {
      const auto key = read_text();
      check(keys.erase(key) == 1, "unknown or repeated field `" + key + "`");
      expect(':');
      member(key);
    } while (accept(','));
    expect('}');
    check(keys.empty(), keys.empty() ? "" : "the field `" + *keys.begin() + "` is missing");
  }

  template <typename Item>
  void read_list(const Item& item) {
    expect('[');
    if (accept(']')) {
      return;
    }
    do {
      item();
    } while (accept(','));
    expect(']');
  }

  std::string read_text() {
    expect('"');
    const auto end = json_.find_first_of("\"\\", position_);
    check(end != std::string_view::npos && json_[end] == '"', "a name ends too early or holds an escape");
    const size_t begin = std::exchange(position_, end + 1);
    return std::string(json_.substr(begin, end - begin));
  }

  int64_t read_number() {
    skip_space();
    const size_t start = position_;
    int64_t number = 0;
    for (; position_ < json_.size() && json_[position_] >= '0' && json_[position_] <= '9'; ++position_) {
      number = number * 10 + (json_[position_] - '0');
      check(number <= std::numeric_limits<int32_t>::max(), "a number is too large");
    }
    check(position_ > start, "expected a whole number");
    return number;
  }

  void skip_space() {
    while (position_ < json_.size() && std::string_view(" \t\r\n").find(json_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }

  bool accept(char c) {
    skip_space();
    const bool found = position_ < json_.size() && json_[position_] == c;
    position_ += found ? 1 : 0;
    return found;
  }

  void expect(char c) { check(accept(c), std::string("expected `") + c + "`"); }

  void check(bool holds, const std::string& problem) const {
    TORCH_CHECK_VALUE(holds, "torchslim::channel_plan_from_json: ", problem, " (byte ", position_, " of ", json_.size(),
                      ")");
  }

  std::string_view json_;
  size_t position_ = 0;
};

}  // namespace

std::string to_json(const ChannelPlan& plan) {
  return "{\"format\": " + in_quotes(kFormat) + ", \"version\": " + std::to_string(kVersion) +
         ", \"cuts\": " + list_of(plan.cuts, format_cut) + "}";
}

ChannelPlan channel_plan_from_json(const std::string& json) { return PlanReader(json).read(); }

}  // namespace torchslim::prune
