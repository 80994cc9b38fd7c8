// SPDX-License-Identifier: BSD-3-Clause
#include <pybind11/stl.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/float_format.h>
#include <torchslim/quant/fold.h>
#include <torchslim/quant/learned_modules.h>
#include <torchslim/quant/levels.h>
#include <torchslim/quant/observers.h>
#include <torchslim/quant/qparams.h>
#include <torchslim/quant/quantization_schedule.h>
#include <torchslim/quant/summary.h>
#include <torchslim/quant/weight_quantizer.h>

#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "quant/place_quantizers.h"

namespace torchslim::bindings {

void init_quant_ranks(pybind11::module_& room);          // quant_ranks.cpp, by itself for the size of its headers
void init_quant_requantize(pybind11::module_& room);     // quant_requantize.cpp
void init_quant_post_training(pybind11::module_& room);  // quant_post_training.cpp
void init_quant_search(pybind11::module_& room);         // quant_search.cpp

namespace {

using Pair = std::pair<at::Tensor, at::Tensor>;

Pair as_pair(const quant::GridTensors& grid) { return {grid.scale, grid.zero_point}; }

Pair choose_qparams(const at::Tensor& min_val, const at::Tensor& max_val, int64_t quant_min, int64_t quant_max,
                    bool symmetric) {
  return as_pair(quant::choose_qparams(min_val, max_val, quant_min, quant_max, symmetric));
}

// Checks the options of an observer and returns its smallest and largest code.
std::pair<int64_t, int64_t> observed_codes(const std::string& module, int64_t bits, bool symmetric,
                                           std::optional<int64_t> axis, std::optional<int64_t> group_size,
                                           std::optional<int64_t> quant_min, std::optional<int64_t> quant_max,
                                           const std::string& non_finite, double averaging_constant, int64_t bins,
                                           double percentile) {
  const auto options = quant::ObserverOptions()
                           .bits(bits)
                           .symmetric(symmetric)
                           .axis(axis)
                           .group_size(group_size)
                           .quant_min(quant_min)
                           .quant_max(quant_max)
                           .non_finite(non_finite)
                           .averaging_constant(averaging_constant)
                           .bins(bins)
                           .percentile(percentile);
  options.check(module);
  return {options.smallest_code(), options.largest_code()};
}

void init_observers(pybind11::module_& m) {
  using pybind11::arg;
  m.def("observed_codes", observed_codes, arg("module"), arg("bits"), arg("symmetric"), arg("axis"), arg("group_size"),
        arg("quant_min"), arg("quant_max"), arg("non_finite"), arg("averaging_constant"), arg("bins"),
        arg("percentile"));
}

using OptionalTensor = std::optional<at::Tensor>;

std::tuple<at::Tensor, at::Tensor, at::Tensor> as_tuple(const quant::FoldedWeight& folded) {
  return {folded.codes, folded.scale, folded.bias};
}

std::optional<quant::BatchNormTensors> batch_norm_of(const OptionalTensor& gamma, const OptionalTensor& beta,
                                                     const OptionalTensor& mean, const OptionalTensor& var,
                                                     double eps) {
  if (!mean) {
    return std::nullopt;
  }
  return quant::BatchNormTensors{gamma.value_or(at::Tensor()), beta.value_or(at::Tensor()), *mean, var.value(), eps};
}

void init_fold(pybind11::module_& m) {
  m.def("quantize_weight", [](const at::Tensor& weight) {
    const quant::QuantizedWeight quantized = quant::quantize_weight(weight);
    return std::make_tuple(quantized.codes, quantized.scale);
  });
  m.def("fold_batch_norm", [](const at::Tensor& codes, const at::Tensor& weight_scale, const OptionalTensor& bias,
                              const OptionalTensor& gamma, const OptionalTensor& beta, const at::Tensor& mean,
                              const at::Tensor& var, double eps) {
    return as_tuple(quant::fold_batch_norm(codes, weight_scale, bias, gamma, beta, mean, var, eps));
  });
  m.def("fit_bias",
        [](const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& bias, const at::Tensor& input_scale) {
          return as_tuple(quant::fit_bias({codes, scale, bias}, input_scale));
        });
  using pybind11::arg;
  using pybind11::none;
  m.def(
      "fold_layer",
      [](const at::Tensor& weight, const OptionalTensor& bias, const at::Tensor& input_scale,
         const OptionalTensor& gamma, const OptionalTensor& beta, const OptionalTensor& mean, const OptionalTensor& var,
         double eps) {
        return as_tuple(quant::fold_layer(weight, bias.value_or(at::Tensor()),
                                          batch_norm_of(gamma, beta, mean, var, eps), input_scale));
      },
      arg("weight"), arg("bias"), arg("input_scale"), arg("gamma") = none(), arg("beta") = none(), arg("mean") = none(),
      arg("var") = none(), arg("eps") = 0.0);
  m.def(
      "fold_codes",
      [](const at::Tensor& codes, const at::Tensor& scale, const OptionalTensor& bias, const at::Tensor& input_scale,
         const OptionalTensor& gamma, const OptionalTensor& beta, const OptionalTensor& mean, const OptionalTensor& var,
         double eps) {
        return as_tuple(quant::fold_layer(quant::QuantizedWeight{codes, scale}, bias.value_or(at::Tensor()),
                                          batch_norm_of(gamma, beta, mean, var, eps), input_scale));
      },
      arg("codes"), arg("scale"), arg("bias"), arg("input_scale"), arg("gamma") = none(), arg("beta") = none(),
      arg("mean") = none(), arg("var") = none(), arg("eps") = 0.0);
  m.def("dequantize_weight", &quant::dequantize_weight);
}

quant::WeightQuantizerOptions weight_quantizer_options(const std::string& quantizer, std::optional<int64_t> bits,
                                                       const std::string& scale_search) {
  return quant::WeightQuantizerOptions().quantizer(quantizer).bits(bits).scale_search(scale_search);
}

void init_weight_quantizer(pybind11::module_& m) {
  using quant::WeightQuantizerOptions;
  pybind11::class_<WeightQuantizerOptions>(m, "WeightQuantizerOptions")
      .def(pybind11::init(&weight_quantizer_options), pybind11::arg("quantizer"), pybind11::arg("bits"),
           pybind11::arg("scale_search"))
      .def_static("quantizers", &WeightQuantizerOptions::quantizers)
      .def("takes", &WeightQuantizerOptions::takes)
      .def("check", &WeightQuantizerOptions::check)
      .def_property_readonly("width", &WeightQuantizerOptions::width)
      .def_property_readonly("largest_code", &WeightQuantizerOptions::largest_code)
      .def_property_readonly("has_codes", &WeightQuantizerOptions::has_codes)
      .def_property_readonly("is_default", &WeightQuantizerOptions::is_default);
}

void init_summary(pybind11::module_& m) {
  using quant::SummaryRow;
  pybind11::class_<SummaryRow>(m, "SummaryRow")
      .def(pybind11::init([](std::string layer, std::string tensor, std::string grid, int64_t bits,
                             std::optional<double> smallest_scale, std::optional<double> largest_scale,
                             std::optional<double> saturated, std::optional<double> sqnr) {
        return SummaryRow{std::move(layer), std::move(tensor), std::move(grid), bits,
                          smallest_scale,   largest_scale,     saturated,       sqnr};
      }));
  m.def("summary_table", [](const std::vector<SummaryRow>& rows) { return quant::to_string(rows); });
  m.def("grid_error", [](const at::Tensor& x, const at::Tensor& rounded, const OptionalTensor& scale) {
    const quant::GridError error = quant::grid_error(x, rounded, scale.value_or(at::Tensor()));
    return std::make_pair(error.saturated, error.sqnr);
  });
  m.def("schedule_state", [](int64_t step, int64_t observe_from, int64_t quantize_from,
                             std::optional<int64_t> freeze_observers_at, std::optional<int64_t> freeze_batch_norm_at) {
    const auto state = quant::schedule_state(quant::ScheduleOptions()
                                                 .observe_from(observe_from)
                                                 .quantize_from(quantize_from)
                                                 .freeze_observers_at(freeze_observers_at)
                                                 .freeze_batch_norm_at(freeze_batch_norm_at),
                                             step);
    return std::make_tuple(state.observes, state.rounds, state.freezes_batch_norm);
  });
}

void init_learned(pybind11::module_& m) {
  m.def("initial_scale", &quant::initial_scale);
  m.def("initial_qparams", &quant::initial_qparams);
  m.def("initial_alpha", &quant::initial_alpha);
  m.def("initial_log2_threshold", &quant::initial_log2_threshold);
  m.def("initial_range", &quant::initial_range);
  m.def("rounded_zero_point", &quant::rounded_zero_point);
}

}  // namespace

void init_quant(pybind11::module_& m) {
  auto room = m.def_submodule("quant");
  room.def("choose_qparams", choose_qparams);
  room.def("channel_qparams", [](const at::Tensor& min_val, const at::Tensor& max_val, int64_t quant_min,
                                 int64_t quant_max, bool symmetric) {
    return as_pair(quant::channel_qparams(min_val, max_val, quant_min, quant_max, symmetric));
  });
  room.def("weight_qparams", [](const at::Tensor& weight) { return as_pair(quant::weight_qparams(weight)); });
  room.def("fake_quantize",
           static_cast<at::Tensor (*)(const at::Tensor&, double, int64_t, int64_t, int64_t)>(&quant::fake_quantize));
  room.def("fake_quantize", static_cast<at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                                                       int64_t, std::optional<int64_t>)>(&quant::fake_quantize));
  room.def("apot_levels", &quant::apot_levels);
  room.def("kmeans_levels", &quant::kmeans_levels);
  room.def("power_of_two_levels", &quant::power_of_two_levels);
  room.def("power_of_two_scale", &quant::power_of_two_scale);
  room.def("absmax_scale", &quant::absmax_scale);
  room.def("float_format_limits",
           [](int64_t exponent_bits, int64_t mantissa_bits, int64_t bias, const std::string& specials, bool saturate) {
             const quant::FloatFormat format{exponent_bits, mantissa_bits, bias, specials, saturate};
             return std::make_pair(format.max(), format.smallest());
           });
  room.def("minifloat_bias", [](int64_t exponent_bits, int64_t mantissa_bits) {
    return quant::FloatFormat::minifloat(exponent_bits, mantissa_bits).bias;
  });
  // Where C++ puts quantisers: tests hold what Python's prepare does against it.
  room.def("place_quantizers", [](const graph::Graph& graph, const std::set<std::string>& leaf_layers) {
    const auto placement = quant::detail::place_quantizers(graph, leaf_layers, quant::PrepareOptions());
    std::vector<std::string> paths;
    for (const auto& quantizer : placement.quantizers) {
      paths.push_back(quantizer.path);
    }
    return std::make_pair(paths, placement.float_layers);
  });
  init_observers(room);
  init_fold(room);
  init_learned(room);
  init_weight_quantizer(room);
  init_summary(room);
  init_quant_ranks(room);
  init_quant_requantize(room);
  init_quant_post_training(room);
  init_quant_search(room);
}

}  // namespace torchslim::bindings
