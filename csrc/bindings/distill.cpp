// SPDX-License-Identifier: BSD-3-Clause
#include "bindings/bindings.h"

namespace torchslim::bindings {

void init_distill(pybind11::module_& m) { m.def_submodule("distill"); }

}  // namespace torchslim::bindings
