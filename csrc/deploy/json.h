// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace torchslim::deploy::json {

/// Returns `text` in quotes, with what JSON forbids escaped.
inline std::string quote(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

/// Returns the shortest text that reads back as `value`; "null" for NaN and infinity.
template <typename T>
std::string number(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) {
      return "null";
    }
  }
  return fmt::format("{}", value);
}

/// Returns "[a,b,...]".
template <typename Numbers>
std::string array(const Numbers& numbers) {
  std::string text = "[";
  for (const auto& value : numbers) {
    text += (text.size() > 1 ? "," : "") + number(value);
  }
  return text + "]";
}

/// An object whose members stay in the order they were added. Values are JSON text.
class Object {
 public:
  Object& add(std::string_view key, std::string value) {
    members_.emplace_back(key, std::move(value));
    return *this;
  }

  /// Returns the object in one line, or one member a line from `indent` spaces on.
  std::string text(int indent = -1) const {
    const bool lines = indent >= 0;
    std::string text = "{";
    for (const auto& [key, value] : members_) {
      text += text.size() > 1 ? "," : "";
      text += lines ? "\n" + std::string(indent + 2, ' ') : "";
      text += quote(key) + (lines ? ": " : ":") + value;
    }
    return text + (lines ? "\n" + std::string(indent, ' ') : "") + "}";
  }

 private:
  std::vector<std::pair<std::string, std::string>> members_;
};

}  // namespace torchslim::deploy::json
