// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torchslim/deploy/report.h>

#include <fstream>
#include <thread>

#include "deploy/json.h"

namespace torchslim::deploy {
namespace {

constexpr const char* kNothing = "-";

template <typename T>
std::string json_number(const std::optional<T>& value) {
  return value ? json::number(*value) : "null";
}

std::string json_latency(const std::optional<Latency>& latency) {
  return json::Object()
      .add("median", latency ? json::number(latency->median_ms) : "null")
      .add("p95", latency ? json::number(latency->p95_ms) : "null")
      .text();
}

std::string percent(const std::optional<double>& value) { return value ? fmt::format("{:.2f} %", *value) : kNothing; }

// 1234567 as "1,234,567", whatever the locale.
std::string thousands(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) {
      text += ',';
    }
    text += digits[i];
  }
  return text;
}

std::string bytes_text(const std::optional<int64_t>& value) { return value ? thousands(*value) : kNothing; }

std::string row(const char* name, const std::optional<double>& accuracy, const std::optional<int64_t>& bytes,
                const std::optional<Latency>& latency) {
  return fmt::format("{:<30}{:>10}{:>14}{:>12}{:>12}\n", name, percent(accuracy), bytes_text(bytes),
                     latency ? fmt::format("{:.2f} ms", latency->median_ms) : kNothing,
                     latency ? fmt::format("{:.2f} ms", latency->p95_ms) : kNothing);
}

// The sentences under the table: what the numbers come to.
std::string size_and_speed(const Report& report) {
  std::string text;
  const Report::Bytes& bytes = report.bytes;
  if (bytes.student_int8 && bytes.teacher_float && *bytes.student_int8 > 0) {
    text += fmt::format("{:.1f} x smaller than the teacher",
                        static_cast<double>(*bytes.teacher_float) / static_cast<double>(*bytes.student_int8));
    if (bytes.student_float) {
      text += fmt::format(", {:.1f} x smaller than its own float file",
                          static_cast<double>(*bytes.student_float) / static_cast<double>(*bytes.student_int8));
    }
    text += "\n";
  }
  if (report.int8_latency && report.float_latency && report.int8_latency->median_ms > 0) {
    text += fmt::format("{:.2f} x as fast as its float file, one image on {} of this machine\n",
                        report.float_latency->median_ms / report.int8_latency->median_ms,
                        report.threads == 1 ? "one thread" : fmt::format("{} threads", report.threads));
  }
  if (report.weights.total > 0) {
    text += fmt::format("{} of {} int8 weights are not zero (sparsity {:.1f} %)\n", thousands(report.weights.nonzero),
                        thousands(report.weights.total), 100 * report.weights.sparsity());
  }
  return text;
}

std::string agreement_text(const Report& report) {
  std::string text;
  if (report.agreement) {
    const std::string apart = report.agreement->max_relative
                                  ? fmt::format("{:.1e} of the largest output", *report.agreement->max_relative)
                                  : fmt::format("{} steps", report.agreement->max_steps.value_or(0));
    text += fmt::format(
        "int8 file and fake-quantised model: same answer for {:.2f} % of the images, outputs at most {} apart\n",
        100 * report.agreement->top1, apart);
  }
  if (report.reference_differences) {
    text +=
        fmt::format("int8 file and integer reference: {} outputs differ\n", thousands(*report.reference_differences));
  }
  return text;
}

std::string circumstances(const Report& report) {
  std::string text = fmt::format("{:.0f} s, seed {}", report.seconds, report.seed);
  text += report.machine.empty() ? "" : ", " + report.machine;
  for (const auto& [name, version] : report.versions) {
    text += fmt::format(", {} {}", name, version);
  }
  text += "\n";
  if (report.epochs_dropped > 0) {
    text +=
        fmt::format("{} epochs were dropped: this machine was too slow for the time allowed\n", report.epochs_dropped);
  }
  if (report.quick) {
    text += "QUICK: a short run on fewer images; its numbers say nothing about the full one\n";
  }
  return text;
}

}  // namespace

std::string format_table(const Report& report) {
  const Report::Accuracy& accuracy = report.accuracy;
  const Report::Bytes& bytes = report.bytes;
  std::string text = fmt::format("{:<30}{:>10}{:>14}{:>12}{:>12}\n", report.quick ? "QUICK" : "", "accuracy", "bytes",
                                 "median", "p95");
  text += row("teacher, float file", accuracy.teacher, bytes.teacher_float, {});
  text += row("student alone, fake-quantised", accuracy.student_alone, {}, {});
  text += row("student, float file", accuracy.float_student, bytes.student_float, report.float_latency);
  text += row("student, fake-quantised", accuracy.fake_quant, {}, {});
  text += row("student, int8 file", accuracy.int8, bytes.student_int8, report.int8_latency);
  return text + size_and_speed(report) + agreement_text(report) + circumstances(report);
}

std::string to_json(const Report& report) {
  json::Object versions;
  for (const auto& [name, version] : report.versions) {
    versions.add(name, json::quote(version));
  }
  const auto& agreement = report.agreement;
  return json::Object()
             .add("accuracy", json::Object()
                                  .add("teacher", json_number(report.accuracy.teacher))
                                  .add("student_alone", json_number(report.accuracy.student_alone))
                                  .add("float", json_number(report.accuracy.float_student))
                                  .add("fake_quant", json_number(report.accuracy.fake_quant))
                                  .add("int8", json_number(report.accuracy.int8))
                                  .text(2))
             .add("bytes", json::Object()
                               .add("teacher_float", json_number(report.bytes.teacher_float))
                               .add("student_float", json_number(report.bytes.student_float))
                               .add("student_int8", json_number(report.bytes.student_int8))
                               .text(2))
             .add("sparsity", json::number(report.weights.sparsity()))
             .add("latency_ms", json::Object()
                                    .add("float", json_latency(report.float_latency))
                                    .add("int8", json_latency(report.int8_latency))
                                    .text(2))
             .add("agreement", json::Object()
                                   .add("top1", agreement ? json::number(100 * agreement->top1) : "null")
                                   .add("max_steps", agreement ? json_number(agreement->max_steps) : "null")
                                   .add("max_relative", agreement ? json_number(agreement->max_relative) : "null")
                                   .add("reference_differences", json_number(report.reference_differences))
                                   .text(2))
             .add("seconds", json::number(report.seconds))
             .add("quick", json::number(report.quick))
             .add("epochs_dropped", json::number(report.epochs_dropped))
             .add("seed", json::number(report.seed))
             .add("machine", json::quote(report.machine))
             .add("versions", versions.text(2))
             .text(0) +
         "\n";
}

std::string machine_name() {
  std::string name = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      name = line.substr(colon + 2);
      break;
    }
  }
  const auto counted = [](int64_t count, const char* what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
  };
  return fmt::format("{}, {}, {}", name, counted(std::thread::hardware_concurrency(), "core"),
                     counted(at::get_num_threads(), "thread"));
}

}  // namespace torchslim::deploy
