// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace torchslim::deploy {

/// A message in Protocol Buffers' wire format, written field by field; the numbers are those of its .proto file.
class ProtobufMessage {
 public:
  /// int32, int64, bool, enum.
  ProtobufMessage& number(int field, int64_t value) {
    key(field, kVarint);
    varint(static_cast<uint64_t>(value));
    return *this;
  }

  /// float.
  ProtobufMessage& real(int field, float value) {
    key(field, kFixed32);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) {
      text_ += static_cast<char>(bits >> shift & 0xFF);
    }
    return *this;
  }

  /// string, bytes.
  ProtobufMessage& bytes(int field, std::string_view value) {
    key(field, kLengthDelimited);
    varint(value.size());
    text_ += value;
    return *this;
  }

  ProtobufMessage& message(int field, const ProtobufMessage& value) { return bytes(field, value.text_); }

  const std::string& text() const { return text_; }

 private:
  static constexpr int kVarint = 0, kLengthDelimited = 2, kFixed32 = 5;

  void key(int field, int wire_type) { varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type)); }

  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
      text_ += static_cast<char>(value | 0x80);
    }
    text_ += static_cast<char>(value);
  }

  std::string text_;
};

}  // namespace torchslim::deploy
