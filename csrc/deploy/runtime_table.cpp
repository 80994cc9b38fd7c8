// SPDX-License-Identifier: BSD-3-Clause
#include "deploy/runtime_table.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>
#include <caffe2/serialize/versions.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torchslim/deploy/check.h>

#include <algorithm>
#include <limits>
#include <map>
#include <sstream>
#include <unordered_map>

namespace torchslim::deploy {
namespace {

constexpr int64_t kAnyNumber = std::numeric_limits<int64_t>::max();

// Each was written by tools/make_runtime_tables.py, run by that build of torch.
const std::map<std::string, const char*>& table_texts() {
  static const std::map<std::string, const char*> texts{
      {
          "1.13.1",
#include "deploy/runtime_tables/1.13.1.inc"
      },
      {
          "2.1.0",
#include "deploy/runtime_tables/2.1.0.inc"
      },
  };
  return texts;
}

RuntimeTable parse_table(const char* text) {
  std::istringstream lines(text);
  RuntimeTable table;
  std::string word;
  lines >> word >> table.lowest_bytecode >> table.highest_bytecode >> word >> table.highest_operator_version;
  std::unordered_map<std::string, Arity> operators;
  std::string name, arguments;
  int64_t required = 0;
  while (lines >> name >> arguments >> required) {
    operators[name] = {arguments == "any" ? kAnyNumber : std::stoll(arguments), required};
  }
  table.find = [operators = std::move(operators)](const std::string& op) -> std::optional<Arity> {
    const auto found = operators.find(op);
    return found == operators.end() ? std::nullopt : std::optional(found->second);
  };
  return table;
}

Arity arity(const c10::FunctionSchema& schema) {
  const std::vector<c10::Argument>& arguments = schema.arguments();
  const int64_t outputs = std::count_if(arguments.begin(), arguments.end(), [](const auto& a) { return a.is_out(); });
  const auto inputs = static_cast<int64_t>(arguments.size()) - outputs;
  int64_t required = inputs;
  while (required > 0 && arguments[required - 1].default_value()) {
    --required;
  }
  return {schema.is_vararg() ? kAnyNumber : inputs + outputs, required + outputs};
}

std::optional<Arity> find_in_this_process(const std::string& op) {
  const size_t space = op.find("::");
  const size_t dot = op.find('.', space == std::string::npos ? 0 : space);
  const c10::OperatorName name(op.substr(0, dot), dot == std::string::npos ? "" : op.substr(dot + 1));
  if (const auto found = torch::jit::findOperatorFor(name)) {
    return arity(found->schema());
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string> known_runtimes() {
  std::vector<std::string> names{"current"};
  for (const auto& [name, text] : table_texts()) {
    names.push_back(name);
  }
  return names;
}

const RuntimeTable& runtime_table(const std::string& name) {
  static const std::map<std::string, RuntimeTable> tables = [] {
    std::map<std::string, RuntimeTable> parsed;
    for (const auto& [version, text] : table_texts()) {
      parsed[version] = parse_table(text);
    }
    parsed["current"] = {caffe2::serialize::kMinSupportedBytecodeVersion,
                         caffe2::serialize::kMaxSupportedBytecodeVersion,
                         caffe2::serialize::kMaxSupportedFileFormatVersion, &find_in_this_process};
    return parsed;
  }();
  return tables.at(name);
}

}  // namespace torchslim::deploy
