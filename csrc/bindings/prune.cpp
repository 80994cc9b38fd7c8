// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/prune/apply_masks.h>
#include <torchslim/prune/channel_plan.h>
#include <torchslim/prune/magnitude_masks.h>
#include <torchslim/prune/schedule.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "prune/layer_names.h"
#include "prune/replace_data.h"

namespace torchslim::bindings {
namespace {

prune::Scope scope_by_name(const std::string& name) {
  TORCH_CHECK_VALUE(name == "global" || name == "layer",
                    "torchslim::prune: scope must be \"global\" or \"layer\", got \"", name, "\"");
  return name == "global" ? prune::Scope::kGlobal : prune::Scope::kLayer;
}

using Tensors = std::vector<at::Tensor>;
using Strings = std::vector<std::string>;

prune::ChannelCriterion criterion_by_name(const std::string& name) {
  TORCH_CHECK_VALUE(name == "l1" || name == "l2" || name == "bn",
                    "torchslim::ChannelPruner: criterion must be \"l1\", \"l2\" or \"bn\", got \"", name, "\"");
  using prune::ChannelCriterion;
  return name == "l1" ? ChannelCriterion::kL1 : name == "l2" ? ChannelCriterion::kL2 : ChannelCriterion::kBatchNorm;
}

// Plans cross the border as JSON, what they do to each layer as tuples.
void bind_channel_plans(pybind11::module_& m) {
  m.def("plan_channels", [](const graph::Graph& graph, double ratio, const std::string& criterion, int64_t round_to,
                            const Strings& exclude) {
    return to_json(prune::plan_channels(graph, {ratio, criterion_by_name(criterion), round_to, exclude}));
  });
  m.def("compose_plans", [](const std::string& first, const std::string& second) {
    return to_json(prune::compose(prune::channel_plan_from_json(first), prune::channel_plan_from_json(second)));
  });
  m.def("cuts_by_layer", [](const std::string& plan) {
    pybind11::list cuts;
    for (const auto& cut : prune::detail::cuts_by_layer(prune::channel_plan_from_json(plan))) {
      cuts.append(pybind11::make_tuple(cut.layer, to_string(cut.kind), cut.outputs, cut.keep_outputs, cut.inputs,
                                       cut.keep_inputs));
    }
    return cuts;
  });
  m.def("replace_data", &prune::detail::replace_data);
}

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
  bind_channel_plans(m);
}

}  // namespace torchslim::bindings
