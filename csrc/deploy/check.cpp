// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/deploy/check.h>

#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "deploy/ptl_file.h"
#include "deploy/ptl_program.h"
#include "deploy/runtime_table.h"
#include "deploy/zip_file.h"

namespace torchslim::deploy {
namespace {

const RuntimeTable& known_table(const std::string& runtime) {
  std::string names;
  for (const std::string& name : known_runtimes()) {
    if (name == runtime) {
      return runtime_table(name);
    }
    names += (names.empty() ? "" : ", ") + name;
  }
  TORCH_CHECK_VALUE(false, "torchslim::check: the runtime must be one of ", names, "; got '", runtime, "'");
}

// What the file says about itself; nothing of it is built.
CheckReport read_facts(const std::string& path, const std::string& runtime) {
  const std::string bytes = read_file(path);
  const std::vector<ZipEntry> entries = read_zip(bytes, path);
  const PtlProgram program = read_program(entries, path);
  CheckReport report;
  report.path = path;
  report.runtime = runtime;
  report.bytecode_version = program.bytecode_version;
  report.operator_version = program.operator_version;
  for (const ZipEntry& entry : entries) {
    const std::string name(entry.name.substr(entry.name.find('/') + 1));  // without the archive's own
    report.records.push_back({name, static_cast<int64_t>(entry.content.size())});
  }
  std::map<std::pair<std::string, std::optional<int64_t>>, int64_t> calls;
  for (const PtlOperator& op : program.operators) {
    const std::string name = op.overload.empty() ? op.name : op.name + "." + op.overload;
    calls[{name, op.arguments < 0 ? std::nullopt : std::optional(op.arguments)}] += op.calls;
  }
  for (const auto& [op, count] : calls) {
    report.operators.push_back({op.first, op.second, count});
  }
  return report;
}

std::string plural(int64_t count, const std::string& thing) {
  return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

std::string runtime_title(const std::string& runtime) {
  return runtime == "current" ? "the LibTorch of this process" : "torch " + runtime;
}

// Why a runtime refuses calls of an operator; "" if it does not.
std::string refusal(const CheckedOperator& op, const RuntimeTable& table, const std::string& title) {
  const std::optional<Arity> found = table.find(op.name);
  if (!found) {
    return title + " has no operator of this name; compute it with others before you save";
  }
  if (op.arguments && *op.arguments > found->arguments) {
    return "the file gives " + plural(*op.arguments, "argument") + ", " + title + " takes " +
           std::to_string(found->arguments) + "; leave the last ones at their defaults";
  }
  if (op.arguments && *op.arguments < found->required) {
    return "the file gives " + plural(*op.arguments, "argument") + ", " + title + " needs " +
           std::to_string(found->required) + "; give all of them before you save";
  }
  return "";
}

}  // namespace

CheckReport check(const std::string& path, const std::string& runtime) {
  const RuntimeTable& table = known_table(runtime);
  const std::string title = runtime_title(runtime);
  CheckReport report = read_facts(path, runtime);
  if (report.bytecode_version < table.lowest_bytecode || report.bytecode_version > table.highest_bytecode) {
    report.problems.push_back({"bytecode", "the file has version " + std::to_string(report.bytecode_version) + ", " +
                                               title + " loads " + std::to_string(table.lowest_bytecode) + " to " +
                                               std::to_string(table.highest_bytecode)});
  }
  if (report.operator_version > table.highest_operator_version) {
    report.problems.push_back({"operator version", "the file has " + std::to_string(report.operator_version) + ", " +
                                                       title + " loads at most " +
                                                       std::to_string(table.highest_operator_version)});
  }
  for (const CheckedOperator& op : report.operators) {
    const std::string why = refusal(op, table, title);
    if (!why.empty()) {
      report.problems.push_back({op.name, why});
    }
  }
  return report;
}

std::string to_string(const CheckReport& report) {
  std::ostringstream text;
  text << report.path << (report.ok() ? " fits " : " does not fit ") << runtime_title(report.runtime) << ": ";
  if (report.ok()) {
    text << "bytecode " << report.bytecode_version << ", operator version " << report.operator_version << ", "
         << plural(static_cast<int64_t>(report.operators.size()), "operator");
    return text.str();
  }
  text << plural(static_cast<int64_t>(report.problems.size()), "problem");
  for (const CheckProblem& problem : report.problems) {
    text << "\n  " << problem.op << ": " << problem.why;
  }
  return text.str();
}

}  // namespace torchslim::deploy
