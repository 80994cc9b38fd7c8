// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/adaround.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "quant/fake_quantize.h"
#include "quant/weight_grid.h"

namespace torchslim::quant {
namespace {

constexpr const char* kAdaround = "torchslim::adaround";
// h(V) = clip(sigmoid(V)·(kHigh − kLow) + kLow, 0, 1), of the paper's section 4.
constexpr double kLow = -0.1, kHigh = 1.1;
constexpr double kLearningRate = 0.01, kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;  // of Adam
constexpr double kWarmUp = 0.2, kSharpest = 2, kFlattest = 20;                         // of the regulariser
constexpr int64_t kStepsAtOnce = 100;
constexpr int64_t kBlockChannels = 32;  // channels are apart: blocks of them go to the threads
constexpr int64_t kErrorRows = 1024;

void check_options(const AdaroundOptions& options) {
  TORCH_CHECK_VALUE(options.iterations() >= 1, kAdaround, ": iterations must be >= 1, got ", options.iterations());
  TORCH_CHECK_VALUE(options.batch_size() >= 1, kAdaround, ": batch_size must be >= 1, got ", options.batch_size());
  TORCH_CHECK_VALUE(options.regularization() >= 0 && std::isfinite(options.regularization()), kAdaround,
                    ": regularization must be >= 0 and finite, got ", options.regularization());
  const auto& activation = options.activation();
  TORCH_CHECK_VALUE(activation == "none" || activation == "relu" || activation == "relu6", kAdaround,
                    ": activation must be `none`, `relu` or `relu6`, got `", activation, "`");
}

void check_layer(const at::Tensor& weight, const at::Tensor& bias, const LayerSamples& samples) {
  detail::check_grid_weight(kAdaround, weight);
  TORCH_CHECK_VALUE(weight.sizes() == samples.weight_shape(), kAdaround, ": the samples are of a weight ",
                    at::IntArrayRef(samples.weight_shape()), ", got a weight ", weight.sizes());
  if (!bias.defined()) {
    return;
  }
  detail::check_input(kAdaround, bias);
  TORCH_CHECK_VALUE(bias.dim() == 1 && bias.numel() == weight.size(0), kAdaround, ": bias must have shape [",
                    weight.size(0), "], got ", bias.sizes());
  TORCH_CHECK_VALUE(bias.isfinite().all().item<bool>(), kAdaround, ": the bias holds NaN or infinity");
}

// Applies the activation in place.
at::Tensor activate_(at::Tensor x, const std::string& activation) {
  return activation == "none" ? x : activation == "relu" ? x.clamp_min_(0) : x.clamp_(0, 6);
}

// Returns rows `index` of each group of `x` (groups, n, size). at::index_select would copy all of `x` where its groups are
// apart, in every step.
at::Tensor rows_at(const at::Tensor& x, const at::Tensor& index) {
  const int64_t count = index.numel(), size = x.size(2);
  auto result = at::empty({x.size(0), count, size}, at::kFloat);
  const auto* const rows = index.const_data_ptr<int64_t>();
  float* to = result.mutable_data_ptr<float>();
  for (int64_t g = 0; g < x.size(0); ++g) {
    const float* const from = x.const_data_ptr<float>() + g * x.stride(0);
    for (int64_t i = 0; i < count; ++i, to += size) {
      std::copy_n(from + rows[i] * size, size, to);
    }
  }
  return result;
}

// The layer as (groups, O / groups, ...) float32, and what its codes are chosen by.
struct Problem {
  at::Tensor weight, floor, nearest;  // (groups, out, K); in scales but for `weight`
  at::Tensor scale;                   // (groups, out, 1)
  at::Tensor bias;                    // (groups, 1, out)
  at::Tensor rows, targets;           // (groups, rows, K); (groups, rows, out), in a part behind the activation
  double limit;
  const AdaroundOptions& options;

  // Returns the part of groups [group, group_end) and output channels [out, out_end) in them.
  Problem part(int64_t group, int64_t group_end, int64_t out, int64_t out_end) const {
    const auto channels = [&](const at::Tensor& x, int64_t dim) {
      return x.slice(0, group, group_end).slice(dim, out, out_end).contiguous();
    };
    return {channels(weight, 1),
            channels(floor, 1),
            channels(nearest, 1),
            channels(scale, 1),
            channels(bias, 2),
            rows.slice(0, group, group_end),
            activate_(channels(targets, 2).clone(), options.activation()),
            limit,
            options};
  }
};

// Some channels of the layer, and how far they have been learned. All within one thread.
class LearnedPart {
 public:
  explicit LearnedPart(Problem problem)
      : p_(std::move(problem)), first_(at::zeros_like(p_.weight)), second_(at::zeros_like(p_.weight)) {
    const auto rest = p_.weight / p_.scale - p_.floor;
    v_ = (kHigh - kLow) / (rest - kLow) - 1;
    v_.log_().neg_();
  }

  // Takes step `t`, from 1, on the rows of `index`, or on all if it is undefined; `beta` is 0 while nothing regularises.
  void step(int64_t t, const at::Tensor& index, double beta) {
    const auto rows = index.defined() ? rows_at(p_.rows, index) : p_.rows;
    const auto targets = index.defined() ? rows_at(p_.targets, index) : p_.targets;
    const auto sigmoid = at::sigmoid(v_);
    const auto stretched = sigmoid * (kHigh - kLow) + kLow;
    const auto h = stretched.clamp(0, 1);
    const auto code = p_.floor + h;
    const auto clamped = code.clamp(-p_.limit, p_.limit);
    auto gradient = at::bmm(output_gradient(rows, clamped * p_.scale, targets).transpose(1, 2), rows);
    gradient.mul_(p_.scale).mul_(clamped.eq(code));
    if (beta > 0) {
      const auto side = h * 2 - 1;
      gradient.sub_(side.abs().pow_(beta - 1).mul_(side.sign_()), 2 * beta * p_.options.regularization());
    }
    gradient.mul_(sigmoid).mul_(1 - sigmoid).mul_(kHigh - kLow).mul_(h.eq(stretched));
    first_.mul_(kBeta1).add_(gradient, 1 - kBeta1);
    second_.mul_(kBeta2).addcmul_(gradient, gradient, 1 - kBeta2);
    const auto steps = static_cast<double>(t);
    const auto size = (second_ / (1 - std::pow(kBeta2, steps))).sqrt_().add_(kEpsilon);
    v_.addcdiv_(first_, size, -kLearningRate / (1 - std::pow(kBeta1, steps)));
  }

  // Returns the codes (groups, out, K), for each channel the better of what was learned and the nearest.
  at::Tensor codes() const {
    const auto up = (at::sigmoid(v_) >= 0.5).to(at::kFloat);  // where h is
    const auto learned = (p_.floor + up).clamp_(-p_.limit, p_.limit);
    const auto better = error(learned) < error(p_.nearest);
    return learned.where(better.unsqueeze(2), p_.nearest).to(at::kChar);
  }

 private:
  // The gradient of the squared error with respect to the output before its activation, (groups, rows, out).
  at::Tensor output_gradient(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& targets) const {
    const auto output = at::baddbmm(p_.bias, rows, weight.transpose(1, 2));
    const auto& activation = p_.options.activation();
    auto gradient = activate_(output.clone(), activation).sub_(targets);
    if (activation != "none") {
      gradient.masked_fill_(output <= 0, 0);
    }
    if (activation == "relu6") {
      gradient.masked_fill_(output >= 6, 0);
    }
    return gradient.mul_(2.0 / static_cast<double>(rows.size(1)));
  }

  // Returns the squared error of each channel over all rows, (groups, out), in float64.
  at::Tensor error(const at::Tensor& codes) const {
    const auto weight = (codes * p_.scale).to(at::kDouble).transpose(1, 2);
    auto sum = at::zeros({codes.size(0), codes.size(1)}, at::kDouble);
    for (int64_t begin = 0; begin < p_.rows.size(1); begin += kErrorRows) {
      const auto rows = p_.rows.slice(1, begin, begin + kErrorRows).to(at::kDouble);
      const auto targets = p_.targets.slice(1, begin, begin + kErrorRows).to(at::kDouble);
      const auto output = at::baddbmm(p_.bias.to(at::kDouble), rows, weight);
      sum += activate_(output, p_.options.activation()).sub_(targets).square_().sum(1);
    }
    return sum;
  }

  Problem p_;
  at::Tensor v_, first_, second_;
};

// Calls `use` for each block, on all threads. Within: one thread, so that the numbers do not depend on how many there are.
template <typename Use>
void for_each_block(std::vector<LearnedPart>& blocks, const Use& use) {
  const auto count = static_cast<int64_t>(blocks.size());
  // Two at least: for one, the loop would not be parallel, and the products inside it would be.
  at::parallel_for(0, std::max<int64_t>(count, 2), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < std::min(end, count); ++i) {
      use(blocks[i]);
    }
  });
}

// Returns β for step `t`, or 0 during the warm-up.
double beta_at(int64_t t, int64_t iterations) {
  const double share = static_cast<double>(t) / static_cast<double>(iterations);
  if (share <= kWarmUp) {
    return 0;
  }
  const double fall = (1 + std::cos(std::numbers::pi * (share - kWarmUp) / (1 - kWarmUp))) / 2;
  return kSharpest + (kFlattest - kSharpest) * fall;
}

void learn(std::vector<LearnedPart>& blocks, int64_t row_count, const AdaroundOptions& options,
           const Progress& progress) {
  const int64_t iterations = options.iterations(), size = options.batch_size();
  std::mt19937_64 random(static_cast<uint64_t>(options.seed()));
  for (int64_t done = 0; done < iterations;) {
    const int64_t steps = std::min(kStepsAtOnce, iterations - done);
    at::Tensor index;
    if (row_count > size) {
      index = at::empty({steps, size}, at::kLong);
      std::generate_n(index.mutable_data_ptr<int64_t>(), index.numel(),
                      [&] { return static_cast<int64_t>(random() % static_cast<uint64_t>(row_count)); });
    }
    for_each_block(blocks, [&](LearnedPart& block) {
      for (int64_t i = 0; i < steps; ++i) {
        block.step(done + i + 1, index.defined() ? index[i] : index, beta_at(done + i + 1, iterations));
      }
    });
    done += steps;
    if (progress) {
      progress(done, iterations);
    }
  }
}

std::vector<LearnedPart> blocks_of(const Problem& problem) {
  const int64_t groups = problem.weight.size(0), out = problem.weight.size(1);
  const int64_t groups_at_once = std::max<int64_t>(1, kBlockChannels / out);
  std::vector<LearnedPart> blocks;
  for (int64_t g = 0; g < groups; g += groups_at_once) {
    for (int64_t o = 0; o < out; o += kBlockChannels) {
      blocks.emplace_back(problem.part(g, std::min(g + groups_at_once, groups), o, std::min(o + kBlockChannels, out)));
    }
  }
  return blocks;
}

at::Tensor joined_codes(std::vector<LearnedPart>& blocks, const Problem& problem) {
  const int64_t groups = problem.weight.size(0), out = problem.weight.size(1);
  const int64_t groups_at_once = std::max<int64_t>(1, kBlockChannels / out);
  std::vector<at::Tensor> parts(blocks.size());
  for_each_block(blocks, [&](LearnedPart& block) { parts[&block - blocks.data()] = block.codes(); });
  auto codes = at::empty(problem.weight.sizes(), at::kChar);
  size_t i = 0;
  for (int64_t g = 0; g < groups; g += groups_at_once) {
    for (int64_t o = 0; o < out; o += kBlockChannels) {
      const auto& part = parts[i++];
      codes.slice(0, g, g + part.size(0)).slice(1, o, o + part.size(1)).copy_(part);
    }
  }
  return codes;
}

}  // namespace

GridWeight adaround(const at::Tensor& weight, const at::Tensor& bias, const LayerSamples& samples,
                    const AdaroundOptions& options, const at::Tensor& scale, const Progress& progress) {
  const auto grid = detail::grid_options(options.bits(), options.scale_search());
  grid.check(kAdaround);
  check_options(options);
  check_layer(weight, bias, samples);
  const GridWeight nearest = round_weight(weight, grid, scale);
  const auto rows = samples.inputs();
  const int64_t groups = rows.size(0), width = rows.size(2), out = weight.size(0) / groups;
  const auto in_groups = [&](const at::Tensor& x, int64_t last) {
    return x.detach().to(at::kCPU, at::kFloat).reshape({groups, -1, last});
  };
  const auto w = in_groups(weight, width), step = in_groups(nearest.scale, 1);
  const auto offset = bias.defined() ? in_groups(bias, out) : at::zeros({groups, 1, out});
  const Problem problem{w,    (w / step).floor_(), in_groups(nearest.codes, width),          step,   offset,
                        rows, samples.targets(),   static_cast<double>(grid.largest_code()), options};
  auto blocks = blocks_of(problem);
  learn(blocks, rows.size(1), options, progress);
  const auto codes = joined_codes(blocks, problem).reshape(weight.sizes()).to(weight.device());
  return detail::weight_of_codes(codes, nearest.scale, weight);
}

}  // namespace torchslim::quant
