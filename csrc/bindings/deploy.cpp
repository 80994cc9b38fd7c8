// SPDX-License-Identifier: BSD-3-Clause
#include <pybind11/stl.h>
#include <torchslim/deploy/check.h>
#include <torchslim/deploy/evaluate.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/deploy/report.h>
#include <torchslim/deploy/report_layers.h>
#include <torchslim/deploy/run_ptl.h>
#include <torchslim/deploy/target.h>

#include "bindings/bindings.h"
#include "deploy/manifest.h"

namespace torchslim::bindings {
namespace {

namespace py = pybind11;
using deploy::Agreement;
using deploy::IntegerGraph;
using deploy::IntegerNode;
using deploy::IntegerOp;
using deploy::IntegerResult;
using deploy::Latency;
using deploy::LayerReport;
using deploy::PtlModel;
using deploy::Report;
using deploy::SavedFile;
using deploy::SaveOptions;
using deploy::WeightCount;
using ReleaseGil = py::call_guard<py::gil_scoped_release>;

// A tensor that is not there is None in Python.
std::optional<at::Tensor> optional_tensor(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

py::tuple window_state(const graph::Window& w) {
  return py::make_tuple(w.kernel, w.stride, w.padding, w.dilation, w.groups, w.ceil_mode, w.count_include_pad,
                        w.output_padding);
}

graph::Window window_from(const py::tuple& state) {
  using Pair = std::array<int64_t, 2>;
  return {state[0].cast<Pair>(),    state[1].cast<Pair>(), state[2].cast<Pair>(), state[3].cast<Pair>(),
          state[4].cast<int64_t>(), state[5].cast<bool>(), state[6].cast<bool>(), state[7].cast<Pair>()};
}

// What pickle and deepcopy keep of a node; tensors are pickled by torch.
py::tuple node_state(const IntegerNode& node) {
  // A table says all that its function does.
  TORCH_CHECK_VALUE(node.float_node == nullptr || node.op == IntegerOp::kTable,
                    "torchslim.deploy.IntegerGraph: layer '", node.layer,
                    "' computes in floats or moves elements, and such a graph cannot be pickled; pickle the prepared "
                    "model's state_dict and convert again");
  return py::make_tuple(static_cast<int>(node.op), node.layer, node.inputs, node.shape, node.scale, node.zero_point,
                        node.clamp_min, node.clamp_max, window_state(node.window), optional_tensor(node.codes),
                        optional_tensor(node.weight_scale), optional_tensor(node.bias),
                        optional_tensor(node.bias_codes), optional_tensor(node.table));
}

IntegerNode node_from(const py::tuple& state) {
  const auto tensor = [&](size_t i) { return state[i].cast<std::optional<at::Tensor>>().value_or(at::Tensor()); };
  IntegerNode node;
  node.op = static_cast<IntegerOp>(state[0].cast<int>());
  node.layer = state[1].cast<std::string>();
  node.inputs = state[2].cast<std::vector<int64_t>>();
  node.shape = state[3].cast<std::vector<int64_t>>();
  node.scale = state[4].cast<float>();
  node.zero_point = state[5].cast<int32_t>();
  node.clamp_min = state[6].cast<int32_t>();
  node.clamp_max = state[7].cast<int32_t>();
  node.window = window_from(state[8].cast<py::tuple>());
  node.codes = tensor(9), node.weight_scale = tensor(10), node.bias = tensor(11), node.bias_codes = tensor(12);
  node.table = tensor(13);
  return node;
}

py::tuple graph_state(const IntegerGraph& graph) {
  py::tuple state(graph.nodes.size());
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    state[i] = node_state(graph.nodes[i]);
  }
  return state;
}

IntegerGraph graph_from(const py::tuple& state) {
  IntegerGraph graph;
  for (const py::handle node : state) {
    graph.nodes.push_back(node_from(node.cast<py::tuple>()));
  }
  return graph;
}

void bind_integer_graph(py::module_& m) {
  py::class_<IntegerNode>(m, "IntegerNode")
      .def_property_readonly("op", [](const IntegerNode& self) { return deploy::to_string(self.op); })
      .def_readonly("layer", &IntegerNode::layer)
      .def_readonly("inputs", &IntegerNode::inputs)
      .def_readonly("shape", &IntegerNode::shape)
      .def_readonly("scale", &IntegerNode::scale)
      .def_readonly("zero_point", &IntegerNode::zero_point)
      .def_readonly("clamp_min", &IntegerNode::clamp_min)
      .def_readonly("clamp_max", &IntegerNode::clamp_max)
      .def_property_readonly("codes", [](const IntegerNode& self) { return optional_tensor(self.codes); })
      .def_property_readonly("weight_scale", [](const IntegerNode& self) { return optional_tensor(self.weight_scale); })
      .def_property_readonly("bias", [](const IntegerNode& self) { return optional_tensor(self.bias); })
      .def_property_readonly("bias_codes", [](const IntegerNode& self) { return optional_tensor(self.bias_codes); })
      .def_property_readonly("table", [](const IntegerNode& self) { return optional_tensor(self.table); })
      .def_readonly("window", &IntegerNode::window)
      .def_property_readonly("float_node",
                             [](const IntegerNode& self) {
                               return self.float_node == nullptr ? std::nullopt : std::optional(*self.float_node);
                             })
      .def_property_readonly("gives_floats", &IntegerNode::gives_floats);
  py::class_<WeightCount>(m, "WeightCount")
      .def_readonly("total", &WeightCount::total)
      .def_readonly("nonzero", &WeightCount::nonzero)
      .def_property_readonly("sparsity", &WeightCount::sparsity);
  py::class_<IntegerGraph>(m, "IntegerGraph")
      .def_readonly("nodes", &IntegerGraph::nodes)
      .def("__str__", [](const IntegerGraph& self) { return deploy::to_string(self); })
      .def("count_weights", &deploy::count_weights)
      .def("checksum", &deploy::checksum)
      .def("__deepcopy__", [](const IntegerGraph& self, const py::dict&) { return self; })  // nothing changes a graph
      .def(py::pickle(&graph_state, &graph_from));
  m.def("lower", &deploy::lower);
}

deploy::InputRule input_rule(const std::string& name) {
  TORCH_CHECK_VALUE(name == "torch-2.13" || name == "round-then-add",
                    "torchslim.deploy.run_integer: input_rule must be `torch-2.13` or `round-then-add`, got `", name,
                    "`");
  return name == "torch-2.13" ? deploy::InputRule::kTorch213 : deploy::InputRule::kRoundThenAdd;
}

void bind_reference(py::module_& m) {
  m.def("run_integer", [](const IntegerGraph& graph, const at::Tensor& images, const std::string& rule) {
    const deploy::InputRule by_name = input_rule(rule);
    const py::gil_scoped_release release;
    const IntegerResult result = deploy::run_integer(graph, images, by_name);
    return std::make_pair(optional_tensor(result.codes), result.values);
  });
  m.def("run_integer_nodes", [](const IntegerGraph& graph, const at::Tensor& images, const std::string& rule) {
    const deploy::InputRule by_name = input_rule(rule);
    const py::gil_scoped_release release;
    return deploy::run_integer_nodes(graph, images, by_name);
  });
}

template <typename Graph>
void bind_save(py::module_& m) {
  m.def("save",
        [](const Graph& graph, const std::string& path, const std::vector<double>& mean, const std::vector<double>& std,
           const std::vector<std::string>& labels, std::optional<int64_t> opset, std::optional<int64_t> bytecode) {
          return deploy::save(graph, path, SaveOptions{mean, std, labels, opset, bytecode});
        });
}

template <typename Graph>
void bind_pte_manifest(py::module_& m) {
  m.def("pte_manifest", [](const Graph& graph, const std::vector<double>& mean, const std::vector<double>& std,
                           const std::vector<std::string>& labels) {
    return deploy::pte_manifest(graph, SaveOptions{mean, std, labels, {}, {}});
  });
}

void bind_files(py::module_& m) {
  py::class_<SavedFile>(m, "SavedFile")
      .def_readonly("path", &SavedFile::path)
      .def_readonly("kind", &SavedFile::kind)
      .def_readonly("bytes", &SavedFile::bytes)
      .def_readonly("records", &SavedFile::records);
  m.def("check_suffix", &deploy::check_suffix);
  bind_pte_manifest<graph::Graph>(m);
  bind_pte_manifest<IntegerGraph>(m);
  bind_save<graph::Graph>(m);
  bind_save<IntegerGraph>(m);
  py::class_<Latency>(m, "Latency")
      .def(py::init<double, double, int64_t>(), py::arg("median_ms"), py::arg("p95_ms"), py::arg("runs") = 0)
      .def_readonly("median_ms", &Latency::median_ms)
      .def_readonly("p95_ms", &Latency::p95_ms)
      .def_readonly("runs", &Latency::runs);
  py::class_<PtlModel>(m, "PtlModel")
      .def(py::init<const std::string&>())
      .def("forward", &PtlModel::forward, ReleaseGil())
      .def_property_readonly("manifest", &PtlModel::manifest);
  m.def("measure_latency", &deploy::measure_latency, ReleaseGil());
}

void bind_check(py::module_& m) {
  py::class_<deploy::CheckProblem>(m, "CheckProblem")
      .def_readonly("op", &deploy::CheckProblem::op)
      .def_readonly("why", &deploy::CheckProblem::why);
  py::class_<deploy::CheckedOperator>(m, "CheckedOperator")
      .def_readonly("name", &deploy::CheckedOperator::name)
      .def_readonly("arguments", &deploy::CheckedOperator::arguments)
      .def_readonly("calls", &deploy::CheckedOperator::calls);
  py::class_<deploy::CheckedRecord>(m, "CheckedRecord")
      .def_readonly("name", &deploy::CheckedRecord::name)
      .def_readonly("bytes", &deploy::CheckedRecord::bytes);
  py::class_<deploy::CheckReport>(m, "CheckReport")
      .def_readonly("path", &deploy::CheckReport::path)
      .def_readonly("runtime", &deploy::CheckReport::runtime)
      .def_readonly("bytecode_version", &deploy::CheckReport::bytecode_version)
      .def_readonly("operator_version", &deploy::CheckReport::operator_version)
      .def_readonly("operators", &deploy::CheckReport::operators)
      .def_readonly("records", &deploy::CheckReport::records)
      .def_readonly("problems", &deploy::CheckReport::problems)
      .def_property_readonly("ok", &deploy::CheckReport::ok)
      .def("__str__", [](const deploy::CheckReport& self) { return deploy::to_string(self); });
  m.def("known_runtimes", &deploy::known_runtimes);
  m.def("check", &deploy::check, ReleaseGil());
}

void bind_evaluation(py::module_& m) {
  py::class_<Agreement>(m, "Agreement")
      .def_readonly("top1", &Agreement::top1)
      .def_readonly("max_steps", &Agreement::max_steps)
      .def_readonly("mean_steps", &Agreement::mean_steps)
      .def_readonly("max_relative", &Agreement::max_relative);
  m.def("run_batches", &deploy::run_batches, ReleaseGil());
  m.def("accuracy", &deploy::accuracy);
  m.def("count_reference_differences", &deploy::count_reference_differences, ReleaseGil());
  m.def("compare_outputs", &deploy::compare_outputs);
}

template <typename T>
std::optional<T> number_at(const py::dict& from, const char* group, const char* key) {
  const py::object members = from.contains(group) ? py::object(from[group]) : py::dict();
  return members.contains(key) ? members[key].cast<std::optional<T>>() : std::nullopt;
}

std::optional<Latency> latency_at(const py::dict& from, const char* key) {
  const py::object group = from.contains("latency_ms") ? py::object(from["latency_ms"]) : py::dict();
  if (!group.contains(key) || group[key].is_none() || group[key]["median"].is_none()) {
    return std::nullopt;
  }
  return Latency{group[key]["median"].cast<double>(), group[key]["p95"].cast<double>(), 0};
}

// The report of a dictionary with the keys of report.json; a missing key means: not measured.
Report report_from(const py::dict& from, int64_t weights) {
  Report report;
  report.accuracy = {number_at<double>(from, "accuracy", "teacher"),
                     number_at<double>(from, "accuracy", "student_alone"), number_at<double>(from, "accuracy", "float"),
                     number_at<double>(from, "accuracy", "fake_quant"), number_at<double>(from, "accuracy", "int8")};
  report.bytes = {number_at<int64_t>(from, "bytes", "teacher_float"),
                  number_at<int64_t>(from, "bytes", "student_float"),
                  number_at<int64_t>(from, "bytes", "student_int8")};
  const auto value = [&](const char* key, auto otherwise) {
    return from.contains(key) && !from[key].is_none() ? from[key].cast<decltype(otherwise)>() : otherwise;
  };
  report.weights.total = weights;
  report.weights.nonzero = std::llround(static_cast<double>(weights) * (1 - value("sparsity", 0.0)));
  report.float_latency = latency_at(from, "float");
  report.int8_latency = latency_at(from, "int8");
  report.threads = value("threads", int64_t{1});
  if (const auto top1 = number_at<double>(from, "agreement", "top1")) {
    report.agreement = Agreement{*top1 / 100, number_at<int64_t>(from, "agreement", "max_steps"), std::nullopt,
                                 number_at<double>(from, "agreement", "max_relative")};
  }
  report.reference_differences = number_at<int64_t>(from, "agreement", "reference_differences");
  report.seconds = value("seconds", 0.0);
  report.quick = value("quick", false);
  report.epochs_dropped = value("epochs_dropped", int64_t{0});
  report.seed = value("seed", int64_t{0});
  report.machine = value("machine", std::string());
  if (from.contains("versions")) {
    for (const auto& [name, version] : from["versions"].cast<py::dict>()) {
      report.versions.emplace_back(name.cast<std::string>(), version.cast<std::string>());
    }
  }
  return report;
}

}  // namespace

void init_deploy(py::module_& m) {
  py::module_ room = m.def_submodule("deploy");
  bind_integer_graph(room);
  bind_reference(room);
  bind_files(room);
  bind_check(room);
  bind_evaluation(room);
  room.def("known_targets", &deploy::known_targets);
  room.def("fit_target", [](const deploy::IntegerGraph& graph, const std::string& target) {
    py::list rows;
    for (const deploy::LayerFit& fit : deploy::fit_target(graph, target)) {
      rows.append(py::make_tuple(fit.layer, fit.op, deploy::to_string(fit.arithmetic), fit.problem));
    }
    return rows;
  });
  room.def("require_fit", &deploy::require_fit);
  room.def("format_table",
           [](const py::dict& report, int64_t weights) { return deploy::format_table(report_from(report, weights)); });
  room.def("report_json",
           [](const py::dict& report, int64_t weights) { return deploy::to_json(report_from(report, weights)); });
  py::class_<LayerReport>(room, "LayerReport")
      .def_readonly("layer", &LayerReport::layer)
      .def_readonly("op", &LayerReport::op)
      .def_readonly("arithmetic", &LayerReport::arithmetic)
      .def_readonly("parameters", &LayerReport::parameters)
      .def_readonly("macs", &LayerReport::macs)
      .def_readonly("bytes", &LayerReport::bytes)
      .def_readonly("weight_bits", &LayerReport::weight_bits)
      .def_readonly("steps", &LayerReport::steps)
      .def_readonly("mean_steps", &LayerReport::mean_steps)
      .def_readonly("max_steps", &LayerReport::max_steps);
  room.def("report_layers", &deploy::report_layers, ReleaseGil());
  room.attr("step_bins") = py::cast(deploy::kStepBins);
  room.def("machine_name", &deploy::machine_name);
}

}  // namespace torchslim::bindings
