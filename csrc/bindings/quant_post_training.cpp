// SPDX-License-Identifier: BSD-3-Clause
#include <pybind11/functional.h>
#include <torchslim/quant/adaround.h>
#include <torchslim/quant/correct_bias_analytic.h>
#include <torchslim/quant/equalize.h>
#include <torchslim/quant/gptq.h>
#include <torchslim/quant/hessian.h>
#include <torchslim/quant/layer_samples.h>
#include <torchslim/quant/smooth.h>
#include <torchslim/quant/weight_grid.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"

namespace torchslim::bindings {

void init_quant_post_training(pybind11::module_& room);

namespace {

using Numbers = std::vector<int64_t>;
using WithoutGil = pybind11::call_guard<pybind11::gil_scoped_release>;

std::tuple<at::Tensor, at::Tensor, at::Tensor> as_tuple(const quant::GridWeight& grid) {
  return {grid.weight, grid.scale, grid.codes};
}

quant::LayerGeometry geometry_of(const Numbers& stride, const Numbers& padding, const Numbers& dilation,
                                 int64_t groups) {
  return quant::LayerGeometry().stride(stride).padding(padding).dilation(dilation).groups(groups);
}

void init_weight_grid(pybind11::module_& m) {
  using quant::WeightGridOptions;
  m.def(
      "weight_scale",
      [](const at::Tensor& weight, int64_t bits, const std::string& search) {
        return quant::weight_scale(weight, WeightGridOptions().bits(bits).scale_search(search));
      },
      WithoutGil());
  m.def(
      "round_weight",
      [](const at::Tensor& weight, int64_t bits, const std::string& search, const std::optional<at::Tensor>& scale) {
        const auto options = WeightGridOptions().bits(bits).scale_search(search);
        return as_tuple(quant::round_weight(weight, options, scale.value_or(at::Tensor())));
      },
      WithoutGil());
}

void init_gptq(pybind11::module_& m) {
  using quant::HessianAccumulator;
  pybind11::class_<HessianAccumulator>(m, "HessianAccumulator")
      .def(pybind11::init([](const Numbers& weight_shape, const Numbers& stride, const Numbers& padding,
                             const Numbers& dilation, int64_t groups) {
        return HessianAccumulator(weight_shape, geometry_of(stride, padding, dilation, groups));
      }))
      .def(
          "add",
          [](HessianAccumulator& self, const at::Tensor& input, const std::optional<at::Tensor>& float_input) {
            self.add(input, float_input.value_or(at::Tensor()));
          },
          WithoutGil())
      .def("hessian", &HessianAccumulator::hessian, WithoutGil())
      .def("drift", &HessianAccumulator::drift, WithoutGil())
      .def_property_readonly("rows", &HessianAccumulator::rows);
  m.def(
      "gptq",
      [](const at::Tensor& weight, const at::Tensor& hessian, int64_t bits, const std::string& search,
         int64_t block_size, double damping, bool act_order, const std::optional<at::Tensor>& drift) {
        const auto options = quant::GptqOptions()
                                 .bits(bits)
                                 .scale_search(search)
                                 .block_size(block_size)
                                 .damping(damping)
                                 .act_order(act_order);
        return as_tuple(quant::gptq(weight, hessian, options, drift.value_or(at::Tensor())));
      },
      WithoutGil());
}

void init_adaround(pybind11::module_& m) {
  using quant::LayerSamples;
  pybind11::class_<LayerSamples>(m, "LayerSamples")
      .def(pybind11::init([](const Numbers& weight_shape, const Numbers& stride, const Numbers& padding,
                             const Numbers& dilation, int64_t groups, int64_t max_bytes, uint64_t seed) {
        return LayerSamples(weight_shape, geometry_of(stride, padding, dilation, groups), max_bytes, seed);
      }))
      .def("add", &LayerSamples::add, WithoutGil())
      .def("inputs", &LayerSamples::inputs)
      .def("targets", &LayerSamples::targets)
      .def_property_readonly("rows", &LayerSamples::rows);
  m.def(
      "adaround",
      [](const at::Tensor& weight, const std::optional<at::Tensor>& bias, const LayerSamples& samples, int64_t bits,
         const std::string& search, int64_t iterations, int64_t batch_size, double regularization,
         const std::string& activation, int64_t seed, const std::optional<at::Tensor>& scale,
         const quant::Progress& progress) {
        const auto options = quant::AdaroundOptions()
                                 .bits(bits)
                                 .scale_search(search)
                                 .iterations(iterations)
                                 .batch_size(batch_size)
                                 .regularization(regularization)
                                 .activation(activation)
                                 .seed(seed);
        return as_tuple(quant::adaround(weight, bias.value_or(at::Tensor()), samples, options,
                                        scale.value_or(at::Tensor()), progress));
      },
      WithoutGil());
}

void init_correct_bias_analytic(pybind11::module_& m) {
  m.def("correct_bias_analytic", [](const graph::Graph& graph) { return quant::correct_bias_analytic(graph); });
  m.def("clipped_normal", [](const at::Tensor& mean, const at::Tensor& deviation, double low, double high) {
    const auto moments = quant::clipped_normal(mean, deviation, low, high);
    return std::pair(moments.mean, moments.var);
  });
}

void init_equalize(pybind11::module_& m) {
  m.def("equalize", [](const graph::Graph& graph) {
    using Row = std::tuple<std::string, std::string, std::optional<at::Tensor>, std::string>;
    std::vector<Row> rows;
    for (const auto& pair : quant::equalize(graph)) {
      rows.emplace_back(pair.first, pair.second, pair.scale.defined() ? std::optional(pair.scale) : std::nullopt,
                        pair.reason);
    }
    return rows;
  });
}

void init_smooth(pybind11::module_& m) {
  m.def("smooth_scale", &quant::smooth_scale);
  m.def("apply_smooth_scale", [](const at::Tensor& scale, const at::Tensor& before,
                                 const std::optional<at::Tensor>& bias, const std::vector<at::Tensor>& weights) {
    quant::apply_smooth_scale(scale, before, bias.value_or(at::Tensor()), weights);
  });
}

}  // namespace

void init_quant_post_training(pybind11::module_& room) {
  init_weight_grid(room);
  init_gptq(room);
  init_adaround(room);
  init_correct_bias_analytic(room);
  init_equalize(room);
  init_smooth(room);
}

}  // namespace torchslim::bindings
