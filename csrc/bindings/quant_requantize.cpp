// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/requantize.h>

#include "bindings/bindings.h"

namespace torchslim::bindings {

void init_quant_requantize(pybind11::module_& room) {
  room.def("steps_of", &quant::steps_of);
  room.def("requantize_sums", &quant::requantize_sums);
  room.def("requantized_add", &quant::requantized_add);
  room.def("requantized_mul", &quant::requantized_mul);
}

}  // namespace torchslim::bindings
