// SPDX-License-Identifier: BSD-3-Clause
// The searches of histogram_range.cpp as ops: what they choose depends on the data, and a captured graph cannot branch on it.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>
#include <torchslim/quant/histogram_range.h>

#include <tuple>

#include "quant/histogram_range.h"

namespace torchslim::quant {
namespace {

// An op of (histogram, min_val, max_val, rule...) with the result (min_val, max_val).
template <typename... Rule>
struct RangeOp {
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Search = RangeTensors (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, Rule...);
  using Signature = Result(const at::Tensor&, const at::Tensor&, const at::Tensor&, Rule...);

  template <Search search>
  static Result run(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val, Rule... rule) {
    const auto range = search(histogram, min_val, max_val, rule...);
    return {range.min_val, range.max_val};
  }

  // A range has no gradient.
  template <Search op>
  static Result run_below_autograd(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                                   Rule... rule) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return run<op>(histogram, min_val, max_val, rule...);
  }

  static c10::TypedOperatorHandle<Signature> find(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
  }
};

using ByLevels = RangeOp<int64_t>;
using ByShare = RangeOp<double>;
using ByGrid = RangeOp<int64_t, int64_t, bool>;

RangeTensors as_range(std::tuple<at::Tensor, at::Tensor> result) {
  return {std::get<0>(std::move(result)), std::get<1>(std::move(result))};
}

void register_searches(torch::Library& m) {
  m.impl("l2_range", TORCH_FN(ByLevels::run<detail::l2_range>));
  m.impl("percentile_range", TORCH_FN(ByShare::run<detail::percentile_range>));
  m.impl("mse_range", TORCH_FN(ByGrid::run<detail::mse_range>));
  m.impl("entropy_range", TORCH_FN(ByGrid::run<detail::entropy_range>));
}

}  // namespace

RangeTensors l2_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                      int64_t levels) {
  static const auto op = ByLevels::find("torchslim::l2_range");
  return as_range(op.call(histogram, min_val, max_val, levels));
}

RangeTensors percentile_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                              double percentile) {
  static const auto op = ByShare::find("torchslim::percentile_range");
  return as_range(op.call(histogram, min_val, max_val, percentile));
}

RangeTensors mse_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                       int64_t quant_min, int64_t quant_max, bool symmetric) {
  static const auto op = ByGrid::find("torchslim::mse_range");
  return as_range(op.call(histogram, min_val, max_val, quant_min, quant_max, symmetric));
}

RangeTensors entropy_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                           int64_t quant_min, int64_t quant_max, bool symmetric) {
  static const auto op = ByGrid::find("torchslim::entropy_range");
  return as_range(op.call(histogram, min_val, max_val, quant_min, quant_max, symmetric));
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const auto define = [&m](const std::string& name_and_rule) {
    const auto schema = name_and_rule + ") -> (Tensor min_val, Tensor max_val)";
    m.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
  };
  define("l2_range(Tensor histogram, Tensor min_val, Tensor max_val, int levels");
  define("percentile_range(Tensor histogram, Tensor min_val, Tensor max_val, float percentile");
  define("mse_range(Tensor histogram, Tensor min_val, Tensor max_val, int quant_min, int quant_max, bool symmetric");
  define(
      "entropy_range(Tensor histogram, Tensor min_val, Tensor max_val, int quant_min, int quant_max, bool symmetric");
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) { register_searches(m); }
TORCH_LIBRARY_IMPL(torchslim, Meta, m) { register_searches(m); }
TORCH_LIBRARY_IMPL(torchslim, Autograd, m) {
  m.impl("l2_range", TORCH_FN(ByLevels::run_below_autograd<l2_range>));
  m.impl("percentile_range", TORCH_FN(ByShare::run_below_autograd<percentile_range>));
  m.impl("mse_range", TORCH_FN(ByGrid::run_below_autograd<mse_range>));
  m.impl("entropy_range", TORCH_FN(ByGrid::run_below_autograd<entropy_range>));
}
TORCH_LIBRARY_IMPL(torchslim, AutocastCPU, m) {
  for (const auto* name : {"l2_range", "percentile_range", "mse_range", "entropy_range"}) {
    m.impl(name, torch::CppFunction::makeFallthrough());
  }
}

}  // namespace torchslim::quant
