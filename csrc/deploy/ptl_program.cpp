// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/ptl_program.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>

#include "deploy/pickle_file.h"

namespace torchslim::deploy {
namespace {

void require_program(bool condition, const std::string& path) {
  TORCH_CHECK_VALUE(condition, "torchslim: ", path,
                    " is no program of PyTorch Mobile: bytecode.pkl is not what the lite interpreter reads");
}

const ZipEntry& record(const std::vector<ZipEntry>& entries, const std::string& name, const std::string& path) {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const ZipEntry& entry) { return entry.name.ends_with(name); });
  TORCH_CHECK_VALUE(found != entries.end(), "torchslim: ", path,
                    " is not a whole PyTorch Mobile file: it has no record ", name.substr(1),
                    "; was it saved for another runtime?");
  return *found;
}

PtlOperator operator_of(const PickleValue& item, const std::string& path) {
  const auto& parts = item.items;
  require_program(parts.size() >= 2 && parts.size() <= 3 && parts[0]->kind == PickleValue::Kind::kText &&
                      parts[1]->kind == PickleValue::Kind::kText,
                  path);
  PtlOperator found{parts[0]->text, parts[1]->text, -1, 0};
  if (parts.size() == 3) {
    require_program(parts[2]->kind == PickleValue::Kind::kNumber, path);
    found.arguments = parts[2]->number;
  }
  return found;
}

// The record "version": a number as text.
int64_t version_of(std::string_view text, const std::string& path) {
  int64_t version = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  TORCH_CHECK_VALUE(error == std::errc() && end != text.data(), "torchslim: ", path,
                    " is not a whole PyTorch Mobile file: its record version holds no number");
  return version;
}

// A function: its name, then pairs of a word and a table.
void add_operators(const PickleValue& function, const std::string& path, std::vector<PtlOperator>& operators) {
  require_program(function.items.size() >= 2 && function.items[0]->kind == PickleValue::Kind::kText, path);
  std::vector<PtlOperator> found;
  std::vector<int64_t> called;  // by their places in the function's table
  for (const auto& table : function.items[1]->items) {
    require_program(table->items.size() == 2, path);
    for (const auto& item : table->items[1]->items) {
      if (table->items[0]->is_text("operators")) {
        found.push_back(operator_of(*item, path));
      } else if (table->items[0]->is_text("instructions") && item->items.size() == 3 &&
                 (item->items[0]->is_text("OP") || item->items[0]->is_text("OPN"))) {
        called.push_back(item->items[1]->number);
      }
    }
  }
  for (const int64_t place : called) {
    require_program(place >= 0 && place < static_cast<int64_t>(found.size()), path);
    ++found[place].calls;
  }
  operators.insert(operators.end(), found.begin(), found.end());
}

}  // namespace

PtlProgram read_program(const std::vector<ZipEntry>& entries, const std::string& path) {
  const auto read = [&](const char* name) {
    return read_pickle(record(entries, name, path).content, path + ": " + (name + 1));
  };
  const auto bytecode = read("/bytecode.pkl");
  read("/data.pkl");  // of these two, only whether they are whole
  read("/constants.pkl");
  PtlProgram program;
  require_program(!bytecode->items.empty() && bytecode->items[0]->kind == PickleValue::Kind::kNumber, path);
  program.bytecode_version = bytecode->items[0]->number;
  program.operator_version = version_of(record(entries, "/version", path).content, path);
  for (size_t i = 1; i < bytecode->items.size(); ++i) {
    add_operators(*bytecode->items[i], path, program.operators);
  }
  return program;
}

}  // namespace torchslim::deploy
