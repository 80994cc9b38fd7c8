// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/gptq.h>

#include <algorithm>
#include <cmath>

#include "core/rounding.h"
#include "quant/fake_quantize.h"
#include "quant/weight_grid.h"

namespace torchslim::quant {
namespace {

constexpr const char* kGptq = "torchslim::gptq";
constexpr double kLeastDamping = 1e-6;  // where none was asked for, but H needs it
constexpr int64_t kMostTries = 10;

void check_options(const GptqOptions& options) {
  TORCH_CHECK_VALUE(options.block_size() >= 1, kGptq, ": block_size must be >= 1, got ", options.block_size());
  TORCH_CHECK_VALUE(options.damping() >= 0 && std::isfinite(options.damping()), kGptq,
                    ": damping must be >= 0 and finite, got ", options.damping());
}

// Returns H or D as (groups, K, K) float64.
at::Tensor checked(const char* name, const at::Tensor& matrix, const at::Tensor& weight) {
  detail::check_input(kGptq, matrix);
  TORCH_CHECK_VALUE(matrix.dim() == 2 || matrix.dim() == 3, kGptq, ": ", name,
                    " must have shape (groups, K, K) or (K, K), got ", matrix.sizes());
  const int64_t width = weight.numel() / weight.size(0);
  const int64_t groups = matrix.dim() == 2 ? 1 : matrix.size(0);
  TORCH_CHECK_VALUE(matrix.size(-1) == width && matrix.size(-2) == width, kGptq, ": a weight ", weight.sizes(),
                    " needs a ", name, " of shape (groups, ", width, ", ", width, "), got ", matrix.sizes());
  TORCH_CHECK_VALUE(groups >= 1 && weight.size(0) % groups == 0, kGptq, ": the ", name, "'s ", groups,
                    " groups do not divide the weight's ", weight.size(0), " output channels");
  TORCH_CHECK_VALUE(matrix.isfinite().all().item<bool>(), kGptq, ": the ", name, " holds NaN or infinity");
  return matrix.detach().to(at::kCPU, at::kDouble).reshape({groups, width, width});
}

// Returns the upper Cholesky factor of the inverse of a group's damped H.
at::Tensor inverse_factor(const at::Tensor& hessian, double damping, int64_t group) {
  const double mean = hessian.diagonal().mean().item<double>();
  for (int64_t i = 0; i < kMostTries; ++i) {
    auto damped = hessian.clone();
    damped.diagonal().add_(damping * mean);
    const auto [factor, info] = at::linalg_cholesky_ex(damped);
    if (info.item<int>() == 0) {
      const auto [upper, failed] = at::linalg_cholesky_ex(at::cholesky_inverse(factor), /*upper=*/true);
      if (failed.item<int>() == 0) {
        return upper.contiguous();
      }
    }
    damping = std::max(damping, kLeastDamping) * 10;
  }
  TORCH_CHECK_VALUE(false, kGptq, ": the hessian of group ", group, " is not positive semidefinite, damping of ",
                    damping, " does not help; accumulate it again");
}

// The columns [begin, end) of one group: rounds them, moves those behind within the block, and leaves the errors to move
// the rest by. Rows do not depend on each other.
struct Block {
  int64_t begin, end;
  float limit;
  const float* scale;    // (rows)
  const double* factor;  // (width, width)
  double* weight;        // (rows, width)
  int8_t* codes;         // (rows, width)
  double* error;         // (rows, end - begin)

  void round_row(int64_t row, int64_t width) const {
    double* const w = weight + row * width;
    const double step = scale[row];
    for (int64_t i = begin; i < end; ++i) {
      const double* const u = factor + i * width;
      const double code = core::clamp<double>(core::round_half_even(w[i] / step), -limit, limit);
      const double e = (w[i] - code * step) / u[i];
      codes[row * width + i] = static_cast<int8_t>(code);
      error[row * (end - begin) + i - begin] = e;
      for (int64_t j = i + 1; j < end; ++j) {
        w[j] -= e * u[j];
      }
    }
  }
};

// Rounds a group's weight (rows, width) float64, changed; returns int8 codes.
at::Tensor round_columns(at::Tensor weight, const at::Tensor& factor, const at::Tensor& scale,
                         const GptqOptions& options, float limit) {
  const int64_t rows = weight.size(0), width = weight.size(1);
  auto codes = at::empty({rows, width}, at::kChar);
  for (int64_t begin = 0; begin < width; begin += options.block_size()) {
    const int64_t end = std::min(begin + options.block_size(), width);
    auto error = at::empty({rows, end - begin}, at::kDouble);
    const Block block{begin,
                      end,
                      limit,
                      scale.const_data_ptr<float>(),
                      factor.const_data_ptr<double>(),
                      weight.mutable_data_ptr<double>(),
                      codes.mutable_data_ptr<int8_t>(),
                      error.mutable_data_ptr<double>()};
    const int64_t grain = 1 + 65536 / ((end - begin) * (end - begin));
    at::parallel_for(0, rows, grain, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        block.round_row(row, width);
      }
    });
    if (end < width) {
      weight.slice(1, end).addmm_(error, factor.slice(0, begin, end).slice(1, end), 1, -1);
    }
  }
  return codes;
}

// One group: a weight (rows, width) float64, its nearest codes int8 and scale (rows) float32, H, and w·D (rows, width), which may be
// undefined.
struct Group {
  at::Tensor weight, nearest, scale, hessian, pull;

  at::Tensor codes(int64_t group, const GptqOptions& options, float limit) const {
    auto alive = hessian.clone();
    alive.diagonal().masked_fill_(alive.diagonal() == 0, 1.0);
    at::Tensor order;
    if (options.act_order()) {
      order = at::argsort(alive.diagonal(), /*stable=*/true, /*dim=*/0, /*descending=*/true);
      alive = alive.index_select(0, order).index_select(1, order);
    }
    const auto ordered = [&](const at::Tensor& columns) {
      return order.defined() ? columns.index_select(1, order) : columns;
    };
    const auto factor = inverse_factor(alive, options.damping(), group);
    auto moved = ordered(weight).clone();
    if (pull.defined()) {
      moved += ordered(pull).matmul(factor.t()).matmul(factor);  // H⁻¹ = Uᵀ·U
    }
    auto codes = round_columns(moved, factor, scale, options, limit);
    if (order.defined()) {
      codes = at::empty_like(codes).index_copy_(1, order, codes);
    }
    return codes.where((error_of(codes) <= error_of(nearest)).unsqueeze(1), nearest);
  }

  // How far each row's output is from the one wanted, but for a constant: (rows).
  at::Tensor error_of(const at::Tensor& codes) const {
    const auto difference = codes * scale.to(at::kDouble).unsqueeze(1) - weight;
    auto slope = difference.matmul(hessian);
    if (pull.defined()) {
      slope -= 2 * pull;
    }
    return slope.mul_(difference).sum(1);
  }
};

}  // namespace

GridWeight gptq(const at::Tensor& weight, const at::Tensor& hessian, const GptqOptions& options,
                const at::Tensor& drift) {
  const auto grid = detail::grid_options(options.bits(), options.scale_search());
  grid.check(kGptq);
  check_options(options);
  detail::check_grid_weight(kGptq, weight);
  const auto h = checked("hessian", hessian, weight);
  const auto d = drift.defined() ? checked("drift", drift, weight) : at::Tensor();
  TORCH_CHECK_VALUE(!d.defined() || d.sizes() == h.sizes(), kGptq, ": the drift must have the hessian's shape ",
                    h.sizes(), ", got ", d.sizes());
  const GridWeight nearest = round_weight(weight, grid);
  const int64_t groups = h.size(0), width = h.size(1);
  const auto w = weight.detach().to(at::kCPU, at::kDouble).reshape({groups, -1, width});
  const auto start = nearest.codes.to(at::kCPU).reshape(w.sizes());
  const auto scale = nearest.scale.to(at::kCPU).view({groups, -1});
  auto codes = at::empty(w.sizes(), at::kChar);
  for (int64_t g = 0; g < groups; ++g) {
    const Group group{w[g], start[g], scale[g], h[g], d.defined() ? w[g].matmul(d[g]) : at::Tensor()};
    codes.select(0, g).copy_(group.codes(g, options, static_cast<float>(grid.largest_code())));
  }
  return detail::weight_of_codes(codes.reshape(weight.sizes()).to(weight.device()), nearest.scale, weight);
}

}  // namespace torchslim::quant
