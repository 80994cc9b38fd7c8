// SPDX-License-Identifier: BSD-3-Clause
#include "bindings/bindings.h"

namespace torchslim::bindings {

void init_quant(pybind11::module_& m) { m.def_submodule("quant"); }

}  // namespace torchslim::bindings
