// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/Context.h>
#include <c10/util/Exception.h>

namespace torchslim::deploy {

/// While it lives, quantised operators run with QNNPACK; then with the engine of before, also after an error.
class QnnpackGuard {
 public:
  QnnpackGuard() : before_(at::globalContext().qEngine()) { at::globalContext().setQEngine(at::QEngine::QNNPACK); }
  ~QnnpackGuard() { at::globalContext().setQEngine(before_); }
  QnnpackGuard(const QnnpackGuard&) = delete;
  QnnpackGuard& operator=(const QnnpackGuard&) = delete;

 private:
  at::QEngine before_;
};

/// While it lives, this thread drops torch's note that quantised tensors are deprecated: a .ptl file consists of them,
/// and its user can do nothing about it. Every other warning goes where it went before.
class QuietQuantizedTensors {
 public:
  QuietQuantizedTensors() : guard_(&filter_) {}

 private:
  class Filter : public c10::WarningHandler {
   public:
    Filter() : next_(c10::WarningUtils::get_warning_handler()) {}
    void process(const c10::Warning& warning) override {
      if (warning.msg().find("quantize_per_tensor") == std::string::npos) {
        next_->process(warning);
      }
    }

   private:
    c10::WarningHandler* next_;
  };

  Filter filter_;
  c10::WarningUtils::WarningHandlerGuard guard_;
};

}  // namespace torchslim::deploy
