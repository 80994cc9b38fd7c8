// SPDX-License-Identifier: BSD-3-Clause
#include "models/tensor_header.h"

#include <c10/util/Exception.h>

#include <array>
#include <limits>
#include <set>

namespace torchslim::models {
namespace {

constexpr std::string_view kMetadata = "__metadata__";

void append_string(std::string& json, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  json += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (byte < 0x20) {
      json += "\\u00";
      json += kHex[byte >> 4];
      json += kHex[byte & 15];
    } else {
      json += c;
    }
  }
  json += '"';
}

void append_entry(std::string& json, const TensorEntry& entry) {
  append_string(json, entry.name);
  json += ":{\"dtype\":";
  append_string(json, entry.dtype);
  json += ",\"shape\":[";
  for (size_t i = 0; i < entry.shape.size(); ++i) {
    json += (i == 0 ? "" : ",") + std::to_string(entry.shape[i]);
  }
  json += "],\"data_offsets\":[" + std::to_string(entry.begin) + "," + std::to_string(entry.end) + "]}";
}

void append_utf8(std::string& text, uint32_t code_point) {
  const auto continuation = [&](int shift) { text += static_cast<char>(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0 | (code_point >> 6));
    continuation(0);
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xE0 | (code_point >> 12));
    continuation(6);
    continuation(0);
  } else {
    text += static_cast<char>(0xF0 | (code_point >> 18));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

/// Reads the one form of JSON that a header has; every other form is refused with the byte where it
/// differs.
class HeaderParser {
 public:
  HeaderParser(std::string_view json, const std::string& file) : json_(json), file_(file) {}

  TensorHeader parse() {
    TensorHeader header;
    std::set<std::string> names;
    parse_object([&](std::string key) {
      if (!names.insert(key).second) {
        fail("the name `" + key + "` is given twice");
      }
      if (key == kMetadata) {
        header.metadata = parse_metadata();
      } else {
        header.entries.push_back(parse_entry(std::move(key)));
      }
    });
    skip_space();
    if (position_ != json_.size()) {
      fail("text follows the closing brace");
    }
    return header;
  }

 private:
  std::map<std::string, std::string> parse_metadata() {
    std::map<std::string, std::string> metadata;
    parse_object([&](const std::string& key) {
      if (!metadata.emplace(key, parse_string()).second) {
        fail("the metadata key `" + key + "` is given twice");
      }
    });
    return metadata;
  }

  TensorEntry parse_entry(std::string name) {
    TensorEntry entry;
    entry.name = std::move(name);
    std::set<std::string> seen;
    parse_object([&](const std::string& key) {
      if (!seen.insert(key).second) {
        fail("tensor `" + entry.name + "` has `" + key + "` twice");
      }
      if (key == "dtype") {
        entry.dtype = parse_string();
      } else if (key == "shape") {
        for (const uint64_t size : parse_numbers()) {
          entry.shape.push_back(static_cast<int64_t>(size));
        }
      } else if (key == "data_offsets") {
        const std::vector<uint64_t> offsets = parse_numbers();
        if (offsets.size() != 2) {
          fail("tensor `" + entry.name + "` needs two data_offsets");
        }
        entry.begin = offsets[0];
        entry.end = offsets[1];
      } else {
        fail("tensor `" + entry.name + "` has the unknown field `" + key + "`");
      }
    });
    if (seen.size() != 3) {
      fail("tensor `" + entry.name + "` needs dtype, shape and data_offsets");
    }
    return entry;
  }

  /// Calls `member(key)` before each value; it parses the value.
  template <typename Member>
  void parse_object(const Member& member) {
    expect('{');
    if (accept('}')) {
      return;
    }
    do {
      std::string key = parse_string();
      expect(':');
      member(std::move(key));
    } while (accept(','));
    expect('}');
  }

  std::vector<uint64_t> parse_numbers() {
    std::vector<uint64_t> numbers;
    expect('[');
    if (accept(']')) {
      return numbers;
    }
    do {
      numbers.push_back(parse_number());
    } while (accept(','));
    expect(']');
    return numbers;
  }

  /// A whole number from 0 to the largest int64.
  uint64_t parse_number() {
    skip_space();
    constexpr auto kLargest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    const size_t start = position_;
    uint64_t number = 0;
    for (; position_ < json_.size() && json_[position_] >= '0' && json_[position_] <= '9'; ++position_) {
      const auto digit = static_cast<uint64_t>(json_[position_] - '0');
      if (number > (kLargest - digit) / 10) {
        fail("a number is too large");
      }
      number = number * 10 + digit;
    }
    const size_t digits = position_ - start;
    if (digits == 0 || (digits > 1 && json_[start] == '0')) {
      fail("expected a whole number");
    }
    return number;
  }

  std::string parse_string() {
    skip_space();
    expect('"');
    std::string text;
    while (true) {
      const char c = next();
      if (c == '"') {
        break;
      }
      if (static_cast<unsigned char>(c) < 0x20) {
        fail("a string holds a control character");
      }
      if (c == '\\') {
        parse_escape(text);
      } else {
        text += c;
      }
    }
    if (!is_utf8(text)) {
      fail("a string is not UTF-8");
    }
    return text;
  }

  void parse_escape(std::string& text) {
    constexpr std::string_view kEscapes = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const char c = next();
    if (const size_t i = kEscapes.find(c); i != std::string_view::npos) {
      text += kMeanings[i];
      return;
    }
    if (c != 'u') {
      fail("a string holds an unknown escape");
    }
    uint32_t code_point = parse_hex();
    if (code_point >= 0xD800 && code_point < 0xDC00) {  // the first half of a surrogate pair
      const bool escaped = next() == '\\' && next() == 'u';
      const uint32_t second = escaped ? parse_hex() : 0;
      if (second < 0xDC00 || second > 0xDFFF) {
        fail("a string holds half a surrogate pair");
      }
      code_point = 0x10000 + ((code_point - 0xD800) << 10) + (second - 0xDC00);
    }
    append_utf8(text, code_point);
  }

  uint32_t parse_hex() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = next();
      value <<= 4;
      if (c >= '0' && c <= '9') {
        value |= static_cast<uint32_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value |= static_cast<uint32_t>(c - 'a' + 10);
      } else if (c >= 'A' && c <= 'F') {
        value |= static_cast<uint32_t>(c - 'A' + 10);
      } else {
        fail("a string holds a broken \\u escape");
      }
    }
    return value;
  }

  void skip_space() {
    while (position_ < json_.size() && std::string_view(" \t\r\n").find(json_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }

  char next() {
    if (position_ == json_.size()) {
      fail("it ends too early");
    }
    return json_[position_++];
  }

  bool accept(char c) {
    skip_space();
    const bool found = position_ < json_.size() && json_[position_] == c;
    position_ += found ? 1 : 0;
    return found;
  }

  void expect(char c) {
    if (!accept(c)) {
      fail(std::string("expected `") + c + "`");
    }
  }

  [[noreturn]] void fail(const std::string& problem) const {
    TORCH_CHECK_VALUE(false, "torchslim::load_tensors: `", file_,
                      "` is damaged or no safetensors file: in its header, ", problem, " (byte ", position_, ")");
  }

  std::string_view json_;
  const std::string& file_;
  size_t position_ = 0;
};

}  // namespace

std::string format_header(const TensorHeader& header) {
  std::string json = "{";
  append_string(json, kMetadata);
  json += ":{";
  const char* separator = "";
  for (const auto& [key, value] : header.metadata) {
    json += separator;
    append_string(json, key);
    json += ':';
    append_string(json, value);
    separator = ",";
  }
  json += '}';
  for (const TensorEntry& entry : header.entries) {
    json += ',';
    append_entry(json, entry);
  }
  return json + "}";
}

TensorHeader parse_header(std::string_view json, const std::string& file) { return HeaderParser(json, file).parse(); }

bool is_utf8(std::string_view text) {
  // By number of continuation bytes: the smallest code point that needs them.
  constexpr std::array<uint32_t, 4> kSmallest{0, 0x80, 0x800, 0x10000};
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    const size_t continuations = lead < 0x80 ? 0 : lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2 : lead >> 3 == 30 ? 3 : 4;
    if (continuations == 4 || text.size() - i < continuations) {
      return false;
    }
    uint32_t code_point = continuations == 0 ? lead : lead & (0x3FU >> continuations);
    for (size_t k = 0; k < continuations; ++k, ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte >> 6 != 2) {
        return false;
      }
      code_point = code_point << 6 | (byte & 0x3FU);
    }
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    if (code_point < kSmallest[continuations] || code_point > 0x10FFFF || surrogate) {
      return false;
    }
  }
  return true;
}

}  // namespace torchslim::models
