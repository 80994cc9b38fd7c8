// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/mobile/import.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torchslim/deploy/run_ptl.h>

#include <algorithm>
#include <chrono>
#include <sstream>
#include <vector>

#include "deploy/ptl_file.h"
#include "deploy/ptl_program.h"
#include "deploy/runtime_guards.h"
#include "deploy/zip_file.h"

namespace torchslim::deploy {
namespace {

// LibTorch would say so too, but only when it has built the weights.
void check_operators(const PtlProgram& program, const std::string& path) {
  for (const PtlOperator& op : program.operators) {
    const bool known = op.name.find("::") != std::string::npos &&
                       !torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(op.name)).empty();
    TORCH_CHECK_VALUE(
        known, "torchslim::PtlModel: ", path, " calls the operator ", op.name,
        ", which this LibTorch does not have; load the library that registers it, or save the model again");
  }
}

class Threads {
 public:
  explicit Threads(int64_t threads) : before_(at::get_num_threads()) { at::set_num_threads(static_cast<int>(threads)); }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace

struct PtlModel::Loaded {
  torch::jit::mobile::Module module;
  std::string manifest;
};

PtlModel::PtlModel(const std::string& path) : PtlModel(read_file(path), path) {}

PtlModel::PtlModel(const std::string& bytes, const std::string& path) : loaded_(std::make_shared<Loaded>()) {
  check_operators(read_program(read_zip(bytes, path), path), path);
  const QnnpackGuard engine;
  const QuietQuantizedTensors quiet;
  torch::jit::ExtraFilesMap extra{{kManifestName, ""}};
  std::istringstream stream(bytes);
  try {
    loaded_->module = torch::jit::_load_for_mobile(stream, std::nullopt, extra);
  } catch (const c10::Error& error) {
    TORCH_CHECK_VALUE(false, "torchslim::PtlModel: ", path,
                      " is no PyTorch Mobile file that this LibTorch can load: ", error.what_without_backtrace());
  }
  loaded_->manifest = extra[kManifestName];
}

at::Tensor PtlModel::forward(const at::Tensor& images) {
  const QnnpackGuard engine;
  const QuietQuantizedTensors quiet;
  const at::NoGradGuard no_grad;
  try {
    return loaded_->module.forward({images}).toTensor();
  } catch (const c10::Error& error) {
    TORCH_CHECK_VALUE(false, "torchslim::PtlModel: the file cannot run a batch of shape ", images.sizes(), " and type ",
                      images.scalar_type(), ": ", error.what_without_backtrace());
  }
}

const std::string& PtlModel::manifest() const { return loaded_->manifest; }

at::Tensor run_bytes(const std::string& bytes, const at::Tensor& images) {
  return PtlModel(bytes, "the new file").forward(images);
}

Latency measure_latency(PtlModel& model, const at::Tensor& image, int64_t runs, int64_t warm_up, int64_t threads) {
  TORCH_CHECK_VALUE(runs > 0 && warm_up >= 0 && threads > 0,
                    "torchslim::measure_latency: runs and threads must be > 0 and warm_up >= 0, got ", runs, ", ",
                    threads, " and ", warm_up);
  const Threads limited(threads);
  std::vector<double> milliseconds;
  for (int64_t run = -warm_up; run < runs; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    model.forward(image);
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begin;
    if (run >= 0) {
      milliseconds.push_back(taken.count());
    }
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  const auto at_share = [&](double share) {
    return milliseconds[static_cast<size_t>(share * static_cast<double>(runs - 1) + 0.5)];
  };
  return {at_share(0.5), at_share(0.95), runs};
}

}  // namespace torchslim::deploy
