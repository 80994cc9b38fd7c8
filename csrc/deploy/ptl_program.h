// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "deploy/zip_file.h"

namespace torchslim::deploy {

/// An operator that a program calls.
struct PtlOperator {
  std::string name;       // "aten::conv2d"
  std::string overload;   // "" or "Tensor", ...
  int64_t arguments = 0;  // that are given; the runtime fills in the rest. -1: all (bytecode before 6)
  int64_t calls = 0;      // places in the program that call it
};

/// What the lite interpreter will run.
struct PtlProgram {
  int64_t bytecode_version = 0;
  int64_t operator_version = 0;
  std::vector<PtlOperator> operators;  // of all functions, in the file's order
};

/// Reads the program of an archive's records, without LibTorch: nothing is built or called.
///   path  for messages
/// Throws c10::ValueError if a record that the lite interpreter needs is missing, or is no program.
TORCHSLIM_API PtlProgram read_program(const std::vector<ZipEntry>& entries, const std::string& path);

}  // namespace torchslim::deploy
