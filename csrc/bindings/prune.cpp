// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/prune/apply_masks.h>
#include <torchslim/prune/magnitude_masks.h>
#include <torchslim/prune/schedule.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "prune/layer_names.h"

namespace torchslim::bindings {
namespace {

prune::Scope scope_by_name(const std::string& name) {
  TORCH_CHECK_VALUE(name == "global" || name == "layer",
                    "torchslim::prune: scope must be \"global\" or \"layer\", got \"", name, "\"");
  return name == "global" ? prune::Scope::kGlobal : prune::Scope::kLayer;
}

using Tensors = std::vector<at::Tensor>;
using Strings = std::vector<std::string>;

}  // namespace

void init_prune(pybind11::module_& parent) {
  auto m = parent.def_submodule("prune");
  const pybind11::call_guard<pybind11::gil_scoped_release> no_gil;
  pybind11::class_<prune::PolynomialSchedule>(m, "PolynomialSchedule")
      .def(pybind11::init<int64_t, int64_t, double, double, double, int64_t>())
      .def("__call__", &prune::PolynomialSchedule::operator());
  m.def("polynomial_schedule", &prune::polynomial_schedule);
  m.def("constant_schedule", &prune::constant_schedule);
  m.def("one_shot_schedule", &prune::one_shot_schedule);
  m.def("select_layers", &prune::detail::select_layers);
  m.def(
      "magnitude_masks",
      [](const Tensors& tensors, double sparsity, const std::string& scope, const Strings& names) {
        return prune::magnitude_masks(tensors, sparsity, scope_by_name(scope), names);
      },
      no_gil);
  m.def(
      "tighten_masks",
      [](const Tensors& tensors, const Tensors& previous, double sparsity, const std::string& scope,
         const Strings& names) {
        return prune::detail::tighten_masks(tensors, previous, sparsity, scope_by_name(scope), names);
      },
      no_gil);
  m.def(
      "apply_masks_", [](const Tensors& tensors, const Tensors& masks) { prune::apply_masks_(tensors, masks); },
      no_gil);
}

}  // namespace torchslim::bindings
