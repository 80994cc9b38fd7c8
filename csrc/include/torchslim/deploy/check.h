// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace torchslim::deploy {

/// One reason why a runtime refuses a file.
struct TORCHSLIM_API CheckProblem {
  std::string op;   // "aten::gelu", with the overload behind a dot, or "bytecode" or "operator version"
  std::string why;  // what the runtime has and what the file needs
};

/// An operator that a file calls.
struct TORCHSLIM_API CheckedOperator {
  std::string name;                  // with the overload behind a dot
  std::optional<int64_t> arguments;  // that the calls give; files of bytecode 5 and before do not say
  int64_t calls = 0;                 // places in the program that call it
};

/// A part of the archive that a file is.
struct TORCHSLIM_API CheckedRecord {
  std::string name;  // "bytecode.pkl", "data/0", ...
  int64_t bytes = 0;
};

/// What `check` found.
struct TORCHSLIM_API CheckReport {
  std::string path;
  std::string runtime;
  int64_t bytecode_version = 0;
  int64_t operator_version = 0;
  std::vector<CheckedOperator> operators;  // in alphabetical order
  std::vector<CheckedRecord> records;      // in the file's order
  std::vector<CheckProblem> problems;      // empty: the runtime loads the file

  bool ok() const { return problems.empty(); }
};

/// Returns the runtimes that `check` knows, "current" first.
TORCHSLIM_API std::vector<std::string> known_runtimes();

/// Compares a .ptl file with what a runtime of PyTorch Mobile loads: its bytecode version, its operators' version, and for
/// each operator that the file calls its name, its overload and the number of arguments. The file is not run.
///   path     a .ptl file, of torchslim or of torch
///   runtime  "1.13.1" or "2.1.0": tables that those builds of torch wrote themselves, all operators of a computer's
///            build; an app that was built with chosen operators has fewer. "current": the LibTorch of this process.
/// Throws core::FileError if the file cannot be read, c10::ValueError if it is cut short, changed or no such file, or if
/// the runtime is unknown.
TORCHSLIM_API CheckReport check(const std::string& path, const std::string& runtime = "current");

/// Returns the report as text: a line that says yes or no, and one for each problem; no newline ends it.
TORCHSLIM_API std::string to_string(const CheckReport& report);

}  // namespace torchslim::deploy
