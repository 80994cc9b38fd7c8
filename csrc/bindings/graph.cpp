// SPDX-License-Identifier: BSD-3-Clause
#include <pybind11/stl.h>
#include <torch/csrc/jit/api/module.h>
#include <torchslim/graph/capture.h>
#include <torchslim/graph/count.h>
#include <torchslim/graph/fold.h>
#include <torchslim/graph/graph.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/graph/operation_rules.h>

#include "bindings/bindings.h"

namespace torchslim::bindings {
namespace {

namespace py = pybind11;
using graph::Graph;
using graph::Grid;
using graph::NamedTensor;
using graph::Node;
using graph::Window;

// A tensor that is not there is None in Python.
py::object tensor_or_none(const at::Tensor& tensor) { return tensor.defined() ? py::cast(tensor) : py::none(); }

py::object argument_or_none(const c10::IValue& value) {
  if (value.isTensor()) {
    return tensor_or_none(value.toTensor());
  }
  if (value.isBool()) {
    return py::cast(value.toBool());
  }
  if (value.isInt()) {
    return py::cast(value.toInt());
  }
  if (value.isDouble()) {
    return py::cast(value.toDouble());
  }
  if (value.isString()) {
    return py::cast(value.toStringRef());
  }
  if (value.isIntList()) {
    return py::cast(value.toIntVector());
  }
  if (value.isDoubleList()) {
    return py::cast(value.toDoubleVector());
  }
  TORCH_CHECK_TYPE(value.isNone(), "torchslim.graph.AtenCall: an argument of type ", value.tagKind(),
                   " has no form in Python yet");
  return py::none();
}

py::list arguments_of(const graph::AtenCall& call) {
  py::list arguments;
  for (const c10::IValue& value : call.arguments) {
    arguments.append(argument_or_none(value));
  }
  return arguments;
}

void bind_parts(py::module_& m) {
  py::class_<graph::AtenCall>(m, "AtenCall")
      .def_readonly("op", &graph::AtenCall::op)
      .def_readonly("overload", &graph::AtenCall::overload)
      .def_property_readonly("arguments", &arguments_of)
      .def_readonly("slots", &graph::AtenCall::slots)
      .def_readonly("batch_sizes", &graph::AtenCall::batch_sizes);
  py::class_<Grid>(m, "Grid")
      .def_readonly("scale", &Grid::scale)
      .def_readonly("zero_point", &Grid::zero_point)
      .def_readonly("quant_min", &Grid::quant_min)
      .def_readonly("quant_max", &Grid::quant_max)
      .def_readonly("axis", &Grid::axis);
  py::class_<Window>(m, "Window")
      .def_readonly("kernel", &Window::kernel)
      .def_readonly("stride", &Window::stride)
      .def_readonly("padding", &Window::padding)
      .def_readonly("dilation", &Window::dilation)
      .def_readonly("groups", &Window::groups)
      .def_readonly("ceil_mode", &Window::ceil_mode)
      .def_readonly("count_include_pad", &Window::count_include_pad)
      .def_readonly("output_padding", &Window::output_padding);
  py::class_<NamedTensor>(m, "NamedTensor")
      .def_readonly("name", &NamedTensor::name)
      .def_property_readonly("value", [](const NamedTensor& self) { return tensor_or_none(self.value); });
}

void bind_rules(py::module_& m) {
  py::enum_<graph::GridRule>(m, "GridRule")
      .value("OWN", graph::GridRule::kOwn)
      .value("INPUT", graph::GridRule::kInput)
      .value("FLOAT", graph::GridRule::kFloat);
  py::class_<graph::OperationRule>(m, "OperationRule")
      .def_readonly("kind", &graph::OperationRule::kind)
      .def_readonly("grid", &graph::OperationRule::grid)
      .def_readonly("takes_batch_norm", &graph::OperationRule::takes_batch_norm)
      .def_readonly("takes_activation", &graph::OperationRule::takes_activation);
  m.def("operation_rules", &graph::operation_rules);
  m.def(
      "has_integer_form",
      [](const std::string& kind, const std::vector<std::vector<int64_t>>& inputs, const std::vector<int64_t>& output,
         const std::array<int64_t, 2>& kernel, const std::array<int64_t, 2>& stride,
         const std::array<int64_t, 2>& padding, bool count_include_pad) {
        Window window;
        window.kernel = kernel;
        window.stride = stride;
        window.padding = padding;
        window.count_include_pad = count_include_pad;
        return graph::has_integer_form(kind, inputs, output, window);
      },
      py::arg("kind"), py::arg("inputs"), py::arg("output"), py::arg("kernel") = std::array<int64_t, 2>{1, 1},
      py::arg("stride") = std::array<int64_t, 2>{1, 1}, py::arg("padding") = std::array<int64_t, 2>{0, 0},
      py::arg("count_include_pad") = true);
}

void bind_node(py::module_& m) {
  py::class_<Node>(m, "Node")
      .def_property_readonly("kind", [](const Node& self) { return graph::to_string(self.kind); })
      .def_readonly("layer", &Node::layer)
      .def_readonly("inputs", &Node::inputs)
      .def_readonly("shape", &Node::shape)
      .def_readonly("window", &Node::window)
      .def_readonly("weight", &Node::weight)
      .def_readonly("bias", &Node::bias)
      .def_readonly("running_mean", &Node::running_mean)
      .def_readonly("running_var", &Node::running_var)
      .def_readonly("eps", &Node::eps)
      .def_readonly("weight_grid", &Node::weight_grid)
      .def_readonly("grid", &Node::grid)
      .def_readonly("dim", &Node::dim)
      .def_readonly("call", &Node::call);
}

void bind_functions(py::module_& m) {
  m.def("capture",
        [](const torch::jit::Module& traced, const at::Tensor& example) { return graph::capture(traced, example); });
  m.def("fold_batch_norms", &graph::fold_batch_norms);
  m.def("run_float", &graph::run_float, py::call_guard<py::gil_scoped_release>());
  m.def("count_macs", &graph::count_macs);
  m.def("count_layers", [](const Graph& self) {
    py::list rows;
    for (const auto& count : graph::count_layers(self)) {
      rows.append(py::make_tuple(count.layer, count.weight, graph::to_string(count.kind), count.macs, count.weights,
                                 count.zeros));
    }
    return rows;
  });
}

}  // namespace

void init_graph(pybind11::module_& m) {
  auto room = m.def_submodule("graph");
  bind_parts(room);
  bind_node(room);
  bind_rules(room);
  py::class_<Graph>(room, "Graph")
      .def_readonly("nodes", &Graph::nodes)
      .def("users", &Graph::users, py::arg("index"))
      .def("to_json", [](const Graph& self) { return graph::to_json(self); })
      .def("__len__", [](const Graph& self) { return self.nodes.size(); })
      .def("__str__", [](const Graph& self) { return graph::to_string(self); });
  bind_functions(room);
}

}  // namespace torchslim::bindings
