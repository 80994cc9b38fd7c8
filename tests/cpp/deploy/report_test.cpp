// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/deploy/report.h>

#include "cpp/catch.hpp"

using namespace torchslim::deploy;

namespace {

Report example() {
  Report report;
  report.accuracy = {92.2, 90.5, 90.9, 90.81, 90.8};
  report.bytes = {1862044, 110000, 49001};
  report.weights = {24690, 12345};
  report.float_latency = Latency{0.5, 0.75, 100};
  report.int8_latency = Latency{0.25, 0.5, 100};
  report.agreement = Agreement{0.998, 3, 0.1, {}};
  report.reference_differences = 0;
  report.seconds = 654.3;
  report.seed = 7;
  report.machine = "A \"CPU\"";
  report.versions = {{"torch", "2.13.0"}};
  return report;
}

}  // namespace

TEST_CASE("report: the table says what was measured and what follows", "[deploy][report]") {
  const std::string table = format_table(example());
  for (const char* part :
       {"92.20 %", "1,862,044", "49,001", "0.25 ms", "38.0 x smaller than the teacher", "2.00 x as fast",
        "12,345 of 24,690 int8 weights are not zero (sparsity 50.0 %)", "same answer for 99.80 %", "at most 3 steps",
        "0 outputs differ", "654 s, seed 7", "torch 2.13.0"}) {
    CHECK_THAT(table, ContainsSubstring(part));
  }
  Report floats = example();
  floats.agreement = Agreement{0.998, {}, {}, 0.00123};
  CHECK_THAT(format_table(floats), ContainsSubstring("outputs at most 1.2e-03 of the largest output apart"));
  CHECK_THAT(to_json(floats),
             ContainsSubstring("\"max_steps\": null") && ContainsSubstring("\"max_relative\": 0.00123"));
  CHECK(table.find("QUICK") == std::string::npos);
  CHECK(table.find("dropped") == std::string::npos);
  CHECK(table.back() == '\n');
  CHECK_THAT(table, ContainsSubstring("one image on one thread of"));
  Report threaded = example();
  threaded.threads = 3;
  CHECK_THAT(format_table(threaded), ContainsSubstring("one image on 3 threads of"));
}

TEST_CASE("report: short and cut runs are marked", "[deploy][report]") {
  Report report = example();
  report.quick = true;
  report.epochs_dropped = 2;
  const std::string table = format_table(report);
  CHECK(table.rfind("QUICK", 0) == 0);
  CHECK_THAT(table, ContainsSubstring("2 epochs were dropped"));
  CHECK_THAT(to_json(report), ContainsSubstring("\"quick\": true") && ContainsSubstring("\"epochs_dropped\": 2"));
}

TEST_CASE("report: JSON has the keys of report.json, null where nothing was measured", "[deploy][report]") {
  const std::string json = to_json(example());
  for (const char* part :
       {"\"teacher\": 92.2", "\"student_alone\": 90.5", "\"float\": 90.9", "\"fake_quant\": 90.81", "\"int8\": 90.8",
        "\"student_int8\": 49001", "\"sparsity\": 0.5", "\"float\": {\"median\":0.5,\"p95\":0.75}", "\"top1\": 99.8",
        "\"max_steps\": 3", "\"reference_differences\": 0", "\"seconds\": 654.3", "\"machine\": \"A \\\"CPU\\\"\""}) {
    CHECK_THAT(json, ContainsSubstring(part));
  }
  CHECK_THAT(to_json({}), ContainsSubstring("\"teacher\": null") && ContainsSubstring("\"top1\": null"));
  CHECK_THAT(format_table({}), ContainsSubstring("-"));
  CHECK_THAT(machine_name(), ContainsSubstring(" core"));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  CHECK_THAT(machine_name(), Catch::Matchers::EndsWith(", 1 thread"));
  at::set_num_threads(threads);
}
