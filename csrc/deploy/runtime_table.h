// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace torchslim::deploy {

/// How many arguments an operator takes, and how many of them have no default.
struct Arity {
  int64_t arguments;
  int64_t required;
};

/// What a build of torch loads.
struct RuntimeTable {
  int64_t lowest_bytecode = 0;
  int64_t highest_bytecode = 0;
  int64_t highest_operator_version = 0;
  /// Finds an operator by its name, the overload behind a dot.
  std::function<std::optional<Arity>(const std::string& op)> find;
};

/// Returns the table of one of `known_runtimes` (check.h).
const RuntimeTable& runtime_table(const std::string& name);

}  // namespace torchslim::deploy
