// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/core/atomic_file.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/deploy/run_ptl.h>

#include "cpp/catch.hpp"
#include "cpp/deploy/files.h"
#include "cpp/deploy/networks.h"

using namespace torchslim::deploy;

namespace {

/// Counts the warnings of this thread.
class CountingHandler : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override { ++count; }
  int count = 0;
};

}  // namespace

TEST_CASE("PtlModel: runs with QNNPACK and without a warning, the engine stays", "[deploy][run]") {
  torch::manual_seed(1);
  const IntegerGraph graph = lower(networks::mobilenet());
  const std::string path = files::temporary("run.ptl");
  CountingHandler handler;
  const c10::WarningUtils::WarningHandlerGuard guard(&handler);
  const c10::WarningUtils::WarnAlways always;
  const auto before = at::globalContext().qEngine();
  save_ptl(graph, path);
  PtlModel file(path);
  CHECK(file(networks::images(graph, 2)).sizes() == at::IntArrayRef({2, 10}));
  CHECK(at::globalContext().qEngine() == before);
  CHECK(handler.count == 0);
}

TEST_CASE("PtlModel: broken and missing files are refused", "[deploy][run]") {
  torch::manual_seed(2);
  const std::string path = files::temporary("whole.ptl");
  const IntegerGraph graph = lower(networks::mobilenet());
  save_ptl(graph, path);
  const std::string whole = files::content(path);
  CHECK_THROWS_AS(PtlModel(files::temporary("missing.ptl")), torchslim::core::FileError);
  const std::string broken = files::temporary("broken.ptl");
  for (const size_t size : {size_t{0}, size_t{10}, whole.size() / 2, whole.size() - 1}) {
    files::write(broken, whole.substr(0, size));
    CHECK_THROWS_WITH(PtlModel(broken), ContainsSubstring("not a whole PyTorch Mobile file"));
  }
  std::string changed = whole;
  changed[whole.find("archive/data/1") + 400] ^= 1;  // one bit of the weights
  files::write(broken, changed);
  CHECK_THROWS_WITH(PtlModel(broken), ContainsSubstring("was changed"));
  files::write(broken, "PK\5\6" + std::string(18, '\0'));  // an empty archive
  CHECK_THROWS_AS(PtlModel(broken), c10::ValueError);
}

TEST_CASE("PtlModel: a batch that does not fit is refused with its shape", "[deploy][run]") {
  torch::manual_seed(3);
  const std::string path = files::temporary("fit.ptl");
  save_ptl(lower(networks::mobilenet()), path);
  PtlModel file(path);
  CHECK_THROWS_WITH(file(torch::zeros({2, 3, 28, 28})), ContainsSubstring("[2, 3, 28, 28]"));
  CHECK(file(torch::zeros({1, 1, 28, 28})).size(0) == 1);  // and it still runs
}

TEST_CASE("measure_latency: ordered, on one thread, which is put back", "[deploy][run]") {
  torch::manual_seed(4);
  const std::string path = files::temporary("latency.ptl");
  save_ptl(lower(networks::mobilenet()), path);
  PtlModel file(path);
  const int threads = at::get_num_threads();
  const Latency latency = measure_latency(file, torch::zeros({1, 1, 28, 28}), 20, 2);
  CHECK(latency.runs == 20);
  CHECK(latency.median_ms > 0);
  CHECK(latency.p95_ms >= latency.median_ms);
  CHECK(at::get_num_threads() == threads);
  CHECK_THROWS_WITH(measure_latency(file, torch::zeros({1, 1, 28, 28}), 0, 2), ContainsSubstring("got 0, 1 and 2"));
}
