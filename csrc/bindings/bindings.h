// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/utils/pybind.h>

static_assert(PYBIND11_INTERNALS_VERSION == TORCHSLIM_PYBIND_INTERNALS,
              "torchslim: another pybind11 than LibTorch's own comes first in the include path; remove it");

namespace torchslim::bindings {

void init_core(pybind11::module_& m);
void init_quant(pybind11::module_& m);
void init_prune(pybind11::module_& m);
void init_distill(pybind11::module_& m);
void init_models(pybind11::module_& m);
void init_graph(pybind11::module_& m);
void init_deploy(pybind11::module_& m);

}  // namespace torchslim::bindings
