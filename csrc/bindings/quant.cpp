// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/qparams.h>

#include "bindings/bindings.h"

namespace torchslim::bindings {
namespace {

using Pair = std::pair<at::Tensor, at::Tensor>;

Pair as_pair(const quant::GridTensors& grid) { return {grid.scale, grid.zero_point}; }

Pair choose_qparams(const at::Tensor& min_val, const at::Tensor& max_val, int64_t quant_min, int64_t quant_max,
                    bool symmetric) {
  return as_pair(quant::choose_qparams(min_val, max_val, quant_min, quant_max, symmetric));
}

}  // namespace

void init_quant(pybind11::module_& m) {
  auto room = m.def_submodule("quant");
  room.def("choose_qparams", choose_qparams);
  room.def("weight_qparams", [](const at::Tensor& weight) { return as_pair(quant::weight_qparams(weight)); });
}

}  // namespace torchslim::bindings
