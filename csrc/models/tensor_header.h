// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace torchslim::models {

/// One tensor of a `.safetensors` header; offsets count from the first byte after the header.
struct TensorEntry {
  std::string name;
  std::string dtype;  // "F32", "I8", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// The JSON object in front of the bytes of a `.safetensors` file.
struct TensorHeader {
  std::vector<TensorEntry> entries;  // in the order they are written
  std::map<std::string, std::string> metadata;
};

/// Returns the header as JSON, without white space.
std::string format_header(const TensorHeader& header);

/// Parses the JSON of a header; `file` goes into messages. Throws c10::ValueError for anything but
/// an object of exactly this form, for names given twice, and for text that is not UTF-8.
TensorHeader parse_header(std::string_view json, const std::string& file);

/// Tells whether `text` is UTF-8 without overlong forms and surrogates.
bool is_utf8(std::string_view text);

}  // namespace torchslim::models
