// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace torchslim::deploy {

/// A value of a pickle. Nothing is ever called: what a pickle would build by a call is `kOther`.
struct PickleValue {
  enum class Kind { kNumber, kText, kItems, kOther };
  Kind kind = Kind::kOther;
  int64_t number = 0;
  std::string text;
  std::vector<std::shared_ptr<const PickleValue>> items;  // of a tuple or list
  int depth = 0;                                          // of what nests in it

  bool is_text(std::string_view expected) const { return kind == Kind::kText && text == expected; }
};

/// Reads a pickle as LibTorch's serialiser writes them (protocol 2 and a part of its opcodes).
///   pickle  its bytes
///   what    the file and record, for messages
/// Throws c10::ValueError for anything else: an unknown opcode, a length beyond the end, nesting too deep.
TORCHSLIM_API std::shared_ptr<const PickleValue> read_pickle(std::string_view pickle, const std::string& what);

}  // namespace torchslim::deploy
