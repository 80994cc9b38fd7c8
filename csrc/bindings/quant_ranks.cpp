// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/reduce_observers.h>

#include <optional>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"

namespace torchslim::bindings {

void init_quant_ranks(pybind11::module_& room) {
  using State = std::tuple<at::Tensor, at::Tensor, std::optional<at::Tensor>>;
  room.def("reduce_states", [](const std::vector<State>& states, c10d::ProcessGroup& group) {
    const pybind11::gil_scoped_release others_may_run;  // while this rank waits
    std::vector<quant::ObservedState> observed;
    for (const auto& [min_val, max_val, histogram] : states) {
      observed.push_back({min_val, max_val, histogram.value_or(at::Tensor())});
    }
    quant::reduce_states(observed, group);
  });
}

}  // namespace torchslim::bindings
