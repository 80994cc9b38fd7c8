// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fold.h>

#include <optional>
#include <tuple>

#include "bindings/bindings.h"

namespace torchslim::bindings {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

std::tuple<at::Tensor, at::Tensor, at::Tensor> as_tuple(const quant::FoldedWeight& folded) {
  return {folded.codes, folded.scale, folded.bias};
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
  m.def("dequantize_weight", &quant::dequantize_weight);
}

}  // namespace

void init_quant(pybind11::module_& m) {
  pybind11::module_ quant = m.def_submodule("quant");
  init_fold(quant);
}

}  // namespace torchslim::bindings
