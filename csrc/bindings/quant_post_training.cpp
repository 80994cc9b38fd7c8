// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/gptq.h>
#include <torchslim/quant/hessian.h>
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
      .def("add", &HessianAccumulator::add, WithoutGil())
      .def("hessian", &HessianAccumulator::hessian, WithoutGil())
      .def_property_readonly("rows", &HessianAccumulator::rows);
  m.def(
      "gptq",
      [](const at::Tensor& weight, const at::Tensor& hessian, int64_t bits, const std::string& search,
         int64_t block_size, double damping, bool act_order) {
        const auto options = quant::GptqOptions()
                                 .bits(bits)
                                 .scale_search(search)
                                 .block_size(block_size)
                                 .damping(damping)
                                 .act_order(act_order);
        return as_tuple(quant::gptq(weight, hessian, options));
      },
      WithoutGil());
}

}  // namespace

void init_quant_post_training(pybind11::module_& room) {
  init_weight_grid(room);
  init_gptq(room);
}

}  // namespace torchslim::bindings
