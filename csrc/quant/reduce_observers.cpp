// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/Formatting.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/observers.h>
#include <torchslim/quant/reduce_observers.h>

#include <limits>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "quant/histogram.h"

namespace torchslim::quant {
namespace {

constexpr const char* kReduce = "torchslim::reduce_observers";
constexpr int64_t kMostDims = 16;
constexpr int64_t kSilent = -(int64_t{1} << 62);  // what a rank without a shape says: less than any size

at::Tensor all_reduced(const at::Tensor& tensor, c10d::ReduceOp::RedOpType op, c10d::ProcessGroup& group) {
  std::vector<at::Tensor> tensors{tensor.detach().clone(at::MemoryFormat::Contiguous)};
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  group.allreduce(tensors, options)->wait();
  return tensors.front();
}

constexpr int64_t kSaid = kMostDims + 2;  // of one state: bins, dimensions, sizes

// What one rank says of its states: for each, bins, dimensions and sizes.
std::vector<int64_t> said_of(const std::vector<ObservedState>& states) {
  std::vector<int64_t> said;
  for (const auto& state : states) {
    const int64_t dims = state.min_val.dim();
    TORCH_CHECK_VALUE(dims <= kMostDims, kReduce, ": min_val must have at most ", kMostDims, " dimensions, got ", dims);
    const bool silent = dims == 1 && state.min_val.numel() == 0;
    std::vector<int64_t> one(kSaid, silent ? kSilent : 0);
    one[0] = state.histogram.defined() ? state.histogram.size(-1) : 0;
    if (!silent) {
      one[1] = dims;
      std::copy(state.min_val.sizes().begin(), state.min_val.sizes().end(), one.begin() + 2);
    }
    said.insert(said.end(), one.begin(), one.end());
  }
  return said;
}

// Returns the largest and the smallest of what all ranks say; the smallest of those that are not silent.
std::pair<at::Tensor, at::Tensor> heard_of(const std::vector<int64_t>& said, const at::Device& device,
                                           c10d::ProcessGroup& group) {
  const auto own = at::tensor(said, at::kLong);
  const auto negated = at::where(own == kSilent, own, -own);
  const auto heard = all_reduced(at::cat({own, negated}).to(device), c10d::ReduceOp::MAX, group).to(at::kCPU);
  const auto parts = heard.chunk(2);
  return {parts[0], at::where(parts[1] == kSilent, parts[1], -parts[1])};
}

void check_count(size_t states, const at::Device& device, c10d::ProcessGroup& group) {
  const auto [most, least] = heard_of({static_cast<int64_t>(states)}, device, group);
  TORCH_CHECK_VALUE(at::equal(most, least), kReduce, ": the ranks hold ", least.item<int64_t>(), " to ",
                    most.item<int64_t>(), " observers; nothing is changed. Give all ranks the same model");
}

// Returns for each state the shape that all ranks which have one agree on; {0} if none has seen anything yet.
std::vector<std::vector<int64_t>> agreed_shapes(const std::vector<ObservedState>& states, const at::Device& device,
                                                c10d::ProcessGroup& group) {
  const auto [most, least] = heard_of(said_of(states), device, group);
  std::vector<std::vector<int64_t>> shapes;
  for (size_t s = 0; s < states.size(); ++s) {
    const auto* high = most.const_data_ptr<int64_t>() + s * kSaid;
    const auto* low = least.const_data_ptr<int64_t>() + s * kSaid;
    for (int64_t i = 0; i < kSaid; ++i) {
      TORCH_CHECK_VALUE(high[i] == low[i], kReduce, ": the ranks' states differ in ",
                        i == 0 ? "bins" : (i == 1 ? "dimensions" : "shape"), ": ", low[i], " and ", high[i],
                        "; the state is unchanged. Give all ranks the same model");
    }
    shapes.push_back(high[1] == kSilent ? std::vector<int64_t>{0} : std::vector<int64_t>(high + 2, high + 2 + high[1]));
  }
  return shapes;
}

// Returns the counts of all ranks, in the bins of `after`. A rank whose histogram does not fit stops all ranks.
at::Tensor merged_counts(const at::Tensor& histogram, const detail::RangeTable& before, const detail::RangeTable& after,
                         c10d::ProcessGroup& group) {
  at::Tensor counts;
  std::string trouble;
  try {
    counts = detail::in_wider_bins(kReduce, histogram, before, after).to(histogram.device());
  } catch (const c10::Error& error) {
    trouble = error.what_without_backtrace();
  }
  const auto fits = at::full({1}, trouble.empty() ? 1 : 0, at::TensorOptions(histogram.device()).dtype(at::kLong));
  const bool all_fit = all_reduced(fits, c10d::ReduceOp::MIN, group).item<int64_t>() == 1;
  TORCH_CHECK_VALUE(all_fit, trouble.empty() ? std::string(kReduce) +
                                                   ": the histogram of another rank does not fit "
                                                   "its range; the state is unchanged"
                                             : trouble);
  return all_reduced(counts, c10d::ReduceOp::SUM, group);
}

// Returns the counts of all ranks in the bins of the common range; undefined where there are none.
at::Tensor reduced_counts(const ObservedState& state, const at::Tensor& low, const at::Tensor& high,
                          c10d::ProcessGroup& group) {
  if (!state.histogram.defined() || (low.dim() == 1 && low.numel() == 0)) {
    return {};
  }
  if (state.min_val.numel() > 0) {
    return merged_counts(state.histogram, {state.min_val, state.max_val}, {low, high}, group);
  }
  auto sizes = low.sizes().vec();
  sizes.push_back(state.histogram.size(-1));
  const auto none = at::full_like(low, std::numeric_limits<double>::infinity());
  return merged_counts(at::zeros(sizes, state.histogram.options()), {none, -none}, {low, high}, group);
}

void write(const at::Tensor& to, const at::Tensor& from) { at::Tensor(to).resize_(from.sizes()).copy_(from); }

}  // namespace

void reduce_states(const std::vector<ObservedState>& states, c10d::ProcessGroup& group) {
  const at::NoGradGuard no_grad;
  const at::Device device = states.empty() ? at::Device(at::kCPU) : states.front().min_val.device();
  check_count(states.size(), device, group);
  if (states.empty()) {
    return;
  }
  const auto shapes = agreed_shapes(states, device, group);
  constexpr double kInf = std::numeric_limits<double>::infinity();
  std::vector<at::Tensor> ends;  // -min and max of each state, as one collective takes them
  for (size_t s = 0; s < states.size(); ++s) {
    const bool unseen = states[s].min_val.numel() == 0;
    const auto nothing = at::full(shapes[s], -kInf, states[s].min_val.options());
    ends.push_back(unseen ? nothing.flatten() : states[s].min_val.detach().neg().flatten());
    ends.push_back(unseen ? nothing.flatten() : states[s].max_val.detach().flatten());
  }
  const auto widest = all_reduced(at::cat(ends), c10d::ReduceOp::MAX, group);
  std::vector<ObservedState> after;
  int64_t offset = 0;
  for (size_t s = 0; s < states.size(); ++s) {
    const int64_t size = ends[2 * s].numel();
    const auto low = widest.narrow(0, offset, size).neg().view(shapes[s]);
    const auto high = widest.narrow(0, offset + size, size).view(shapes[s]);
    offset += 2 * size;
    after.push_back({low, high, reduced_counts(states[s], low, high, group)});
  }
  for (size_t s = 0; s < states.size(); ++s) {  // all collectives are over: nothing fails from here on
    write(states[s].min_val, after[s].min_val);
    write(states[s].max_val, after[s].max_val);
    if (after[s].histogram.defined()) {
      write(states[s].histogram, after[s].histogram);
    }
  }
}

void reduce_observers(torch::nn::Module& module, c10d::ProcessGroup& group) {
  at::NoGradGuard no_grad;
  std::vector<ObservedState> states;
  module.apply([&](torch::nn::Module& each) {
    if (auto* observer = dynamic_cast<Observer*>(&each)) {
      states.push_back({observer->min_val, observer->max_val, observer->histogram});
    } else if (auto* quantizer = dynamic_cast<FakeQuantizeImpl*>(&each)) {
      states.push_back({quantizer->min_val, quantizer->max_val, {}});
    }
  });
  reduce_states(states, group);
  module.apply([](torch::nn::Module& each) {  // now that the observers inside quantisers agree
    if (auto* quantizer = dynamic_cast<FakeQuantizeImpl*>(&each)) {
      quantizer->update_qparams();
    }
  });
}

}  // namespace torchslim::quant
