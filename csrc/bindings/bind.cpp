// SPDX-License-Identifier: BSD-3-Clause
#include "bindings/bindings.h"

PYBIND11_MODULE(_C, m) {
  using namespace torchslim::bindings;
  m.doc() = "torchslim's C++ functions; the typed Python packages over them are the public interface.";
  init_core(m);
  init_quant(m);
  init_prune(m);
  init_distill(m);
  init_models(m);
  init_graph(m);
  init_deploy(m);
}
