// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/allocate_bits.h>
#include <torchslim/quant/hessian_trace.h>
#include <torchslim/quant/search.h>
#include <torchslim/quant/sensitivity.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"

namespace torchslim::bindings {

void init_quant_search(pybind11::module_& room);

namespace {

using Choices = std::vector<std::pair<std::string, std::vector<std::pair<int64_t, double>>>>;
using Allocation = std::tuple<std::vector<int64_t>, int64_t, double, double>;
using Plan = std::tuple<std::vector<std::pair<std::string, int64_t>>, int64_t, int64_t, double, double>;

quant::BitSearch search_of(bool greedy) { return greedy ? quant::BitSearch::kGreedy : quant::BitSearch::kExact; }

std::vector<quant::LayerChoices> layers_of(const Choices& layers) {
  std::vector<quant::LayerChoices> result;
  for (const auto& [layer, choices] : layers) {
    result.push_back({layer, {}});
    for (const auto& [cost, damage] : choices) {
      result.back().choices.push_back({cost, damage});
    }
  }
  return result;
}

Allocation tuple_of(const quant::BitAllocation& found) { return {found.choice, found.cost, found.damage, found.bound}; }

Plan tuple_of(const quant::BitPlan& plan) {
  std::vector<std::pair<std::string, int64_t>> bits;
  for (const auto& layer : plan.layers) {
    bits.emplace_back(layer.layer, layer.bits);
  }
  return {bits, plan.bytes, plan.mac_bits, plan.predicted, plan.bound};
}

void init_allocate(pybind11::module_& m) {
  m.def("allocate_bits", [](const Choices& layers, int64_t budget, bool greedy) {
    const pybind11::gil_scoped_release others_may_run;
    return tuple_of(quant::allocate_bits(layers_of(layers), budget, search_of(greedy)));
  });
  m.def("allocate_bits_within", [](const Choices& layers, double most_damage, bool greedy) {
    const pybind11::gil_scoped_release others_may_run;
    return tuple_of(quant::allocate_bits_within(layers_of(layers), most_damage, search_of(greedy)));
  });
  m.def("pareto_front", [](const Choices& layers) {
    std::vector<Allocation> front;
    for (const auto& found : quant::pareto_front(layers_of(layers))) {
      front.push_back(tuple_of(found));
    }
    return front;
  });
}

void init_search(pybind11::module_& m) {
  using quant::Sensitivity;
  using Row = std::tuple<std::string, int64_t, int64_t, int64_t, std::vector<double>>;
  pybind11::class_<Sensitivity>(m, "Sensitivity")
      .def(pybind11::init(
          [](std::vector<int64_t> bits, bool higher_is_better, double baseline, const std::vector<Row>& rows) {
            Sensitivity result{std::move(bits), higher_is_better, baseline, {}};
            for (const auto& [layer, weights, channels, macs, values] : rows) {
              result.layers.push_back({layer, weights, channels, macs, values});
            }
            return result;
          }))
      .def("damage", &Sensitivity::damage)
      .def("__str__", [](const Sensitivity& self) { return quant::to_string(self); });
  m.def("search", [](const Sensitivity& sensitivity, std::optional<int64_t> bytes, std::optional<int64_t> mac_bits,
                     std::optional<double> floor, bool greedy, int64_t activation_bits) {
    const pybind11::gil_scoped_release others_may_run;
    const auto options = quant::SearchOptions()
                             .bytes(bytes)
                             .mac_bits(mac_bits)
                             .floor(floor)
                             .search(search_of(greedy))
                             .activation_bits(activation_bits);
    return tuple_of(quant::search(sensitivity, options));
  });
  m.def("search_front", [](const Sensitivity& sensitivity, int64_t activation_bits) {
    std::vector<Plan> front;
    for (const auto& plan : quant::search_front(sensitivity, activation_bits)) {
      front.push_back(tuple_of(plan));
    }
    return front;
  });
}

}  // namespace

void init_quant_search(pybind11::module_& room) {
  init_allocate(room);
  init_search(room);
  room.def(
      "hessian_trace",
      [](const at::Tensor& loss, const std::vector<at::Tensor>& parameters, int64_t samples, int64_t seed) {
        return quant::hessian_trace(loss, parameters, quant::HessianTraceOptions().samples(samples).seed(seed));
      },
      pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace torchslim::bindings
