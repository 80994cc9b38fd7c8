// SPDX-License-Identifier: BSD-3-Clause
#include <torch/script.h>
#include <torch/torch.h>
#include <torchslim/core/atomic_file.h>
#include <torchslim/deploy/check.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/ptl.h>

#include "core/crc32.h"
#include "cpp/catch.hpp"
#include "cpp/deploy/files.h"
#include "cpp/deploy/networks.h"
#include "deploy/zip_file.h"

using namespace torchslim::deploy;

namespace {

/// A file with this `forward(self, x)`, as torch writes it.
std::string scripted(const std::string& name, const std::string& body) {
  torch::jit::Module module("Net");
  module.define("def forward(self, x):\n  return " + body + "\n");
  const std::string path = files::temporary(name);
  module._save_for_mobile(path);
  return path;
}

/// `bytes` with every `from` replaced by `to`, of the same length.
std::string with(std::string bytes, const std::string& from, const std::string& to) {
  for (size_t at = bytes.find(from); at != std::string::npos; at = bytes.find(from, at + to.size())) {
    bytes.replace(at, from.size(), to);
  }
  return bytes;
}

std::string with_checksum(const std::string& bytes, uint32_t from, uint32_t to) {
  const auto text = [](uint32_t crc) { return std::string(reinterpret_cast<const char*>(&crc), sizeof crc); };
  return with(bytes, text(from), text(to));
}

}  // namespace

TEST_CASE("check: what torchslim writes fits every runtime", "[deploy][check]") {
  torch::manual_seed(1);
  const std::string int8 = files::temporary("check_int8.ptl"), floats = files::temporary("check_float.ptl");
  save_ptl(lower(networks::resnet()), int8);
  save_float_ptl(networks::vgg(false), floats);
  for (const std::string& runtime : known_runtimes()) {
    for (const std::string& path : {int8, floats}) {
      const CheckReport report = check(path, runtime);
      INFO(to_string(report));
      CHECK(report.ok());
      CHECK(report.bytecode_version == 8);
      CHECK(report.operator_version <= 10);
      CHECK_THAT(to_string(report), ContainsSubstring(path + " fits "));
    }
  }
  const CheckReport report = check(int8, "1.13.1");
  const auto conv = std::find_if(report.operators.begin(), report.operators.end(),
                                 [](const auto& op) { return op.name == "quantized::conv2d.new"; });
  REQUIRE(conv != report.operators.end());
  CHECK(conv->arguments == 4);
}

TEST_CASE("check: an operator that a runtime lacks is refused by name", "[deploy][check]") {
  const std::string path = scripted("attention.ptl", "torch.scaled_dot_product_attention(x, x, x)");
  const CheckReport report = check(path, "1.13.1");
  REQUIRE(report.problems.size() == 1);
  CHECK(report.problems[0].op == "aten::scaled_dot_product_attention");
  CHECK(report.problems[0].why == "torch 1.13.1 has no operator of this name; compute it with others before you save");
  CHECK(to_string(report) == path + " does not fit torch 1.13.1: 1 problem\n  aten::scaled_dot_product_attention: " +
                                 report.problems[0].why);
  CHECK(check(path, "2.1.0").ok());
  CHECK(check(path).ok());
}

TEST_CASE("check: an argument that a runtime's schema lacks is refused", "[deploy][check]") {
  const std::string path = scripted(
      "grouped.ptl", "torch.scaled_dot_product_attention(x, x, x, None, 0.0, False, scale=1.0, enable_gqa=True)");
  const CheckReport report = check(path, "2.1.0");
  REQUIRE(report.problems.size() == 1);
  CHECK(report.problems[0].why ==
        "the file gives 8 arguments, torch 2.1.0 takes 7; leave the last ones at their defaults");
  CHECK(check(path).ok());
}

TEST_CASE("check: a newer bytecode is refused", "[deploy][check]") {
  const std::string path = scripted("newer.ptl", "torch.relu(x)");
  const std::string bytes = files::content(path);
  const std::string start("\x80\x02K", 3);  // of bytecode.pkl, before its version
  std::string changed;
  for (const auto& entry : read_zip(bytes, path)) {
    if (entry.name == "newer/bytecode.pkl") {
      REQUIRE(entry.content.substr(0, start.size()) == start);
      std::string program(entry.content);
      program[start.size()] = 99;
      changed = with_checksum(with(bytes, std::string(entry.content), program), entry.crc32,
                              torchslim::core::crc32(program.data(), program.size()));
    }
  }
  files::write(path, changed);
  for (const std::string& runtime : known_runtimes()) {
    const CheckReport report = check(path, runtime);
    REQUIRE(report.problems.size() == 1);
    CHECK(report.problems[0].op == "bytecode");
    CHECK_THAT(report.problems[0].why, ContainsSubstring("the file has version 99, "));
    CHECK_THAT(report.problems[0].why, ContainsSubstring(" loads 4 to 9"));
  }
}

TEST_CASE("check: unknown runtimes and other files are refused", "[deploy][check]") {
  const std::string path = scripted("plain.ptl", "torch.relu(x)");
  CHECK_THROWS_WITH(check(path, "1.9"),
                    ContainsSubstring("the runtime must be one of current, 1.13.1, 2.1.0; got '1.9'"));
  CHECK_THROWS_AS(check(files::temporary("missing.ptl")), torchslim::core::FileError);
  torch::jit::Module module("Net");
  module.define("def forward(self, x):\n  return torch.relu(x)\n");
  const std::string script = files::temporary("script.pt");
  module.save(script);
  CHECK_THROWS_WITH(check(script),
                    ContainsSubstring("it has no record bytecode.pkl; was it saved for another runtime?"));
}
