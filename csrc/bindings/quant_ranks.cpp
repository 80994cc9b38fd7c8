// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/reduce_observers.h>

#include <optional>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "bindings/bindings.h"

namespace torchslim::bindings {

void init_quant_ranks(pybind11::module_& room) {
  room.def("reduce_state", [](const at::Tensor& min_val, const at::Tensor& max_val,
                              const std::optional<at::Tensor>& histogram, c10d::ProcessGroup& group) {
    const pybind11::gil_scoped_release others_may_run;  // while this rank waits
    quant::reduce_state(min_val, max_val, histogram.value_or(at::Tensor()), group);
  });
}

}  // namespace torchslim::bindings
