// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>
#include <torchslim/deploy/evaluate.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/deploy/run_ptl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace torchslim::deploy {

/// What compressing a model came to: every number measured. What was not measured stays empty, is "-" in the table and
/// null in JSON.
struct TORCHSLIM_API Report {
  /// Per cent of the test images.
  struct TORCHSLIM_API Accuracy {
    std::optional<double> teacher;        // float
    std::optional<double> student_alone;  // trained as long, without the teacher
    std::optional<double> float_student;  // before it was prepared; key "float"
    std::optional<double> fake_quant;     // the trained, prepared model
    std::optional<double> int8;           // the file, in the lite interpreter
  } accuracy;

  /// Bytes of the files on disk.
  struct TORCHSLIM_API Bytes {
    std::optional<int64_t> teacher_float;
    std::optional<int64_t> student_float;
    std::optional<int64_t> student_int8;
  } bytes;

  WeightCount weights;  // int8 codes of the file; JSON holds their sparsity, 0 to 1

  std::optional<Latency> float_latency;  // key latency_ms.float
  std::optional<Latency> int8_latency;   // key latency_ms.int8
  int64_t threads = 1;                   // of each latency

  std::optional<Agreement> agreement;            // int8 file and fake-quantised model; JSON holds top1 in per cent
  std::optional<int64_t> reference_differences;  // outputs of the file that the integer reference gives otherwise

  double seconds = 0;          // from the first training step to the report
  bool quick = false;          // a short run, whose numbers say nothing
  int64_t epochs_dropped = 0;  // by the clock, on a slow machine
  int64_t seed = 0;
  std::string machine;                                        // see machine_name
  std::vector<std::pair<std::string, std::string>> versions;  // name, version
};

/// Returns `report` as a table of plain text, ending in a newline: the networks, then what follows from their numbers.
TORCHSLIM_API std::string format_table(const Report& report);

/// Returns `report` as JSON with the keys accuracy, bytes, sparsity, latency_ms, agreement, seconds, quick,
/// epochs_dropped, seed, machine and versions.
TORCHSLIM_API std::string to_json(const Report& report);

/// Returns the processor's name, its cores for this process and LibTorch's threads: "..., 2 cores, 2 threads".
TORCHSLIM_API std::string machine_name();

}  // namespace torchslim::deploy
