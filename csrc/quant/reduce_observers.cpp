// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/Formatting.h>
#include <ATen/ops/full.h>
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

// Returns the shape that all ranks which have one agree on; {0} if none has seen anything yet.
std::vector<int64_t> agreed_shape(const at::Tensor& min_val, const at::Tensor& histogram, c10d::ProcessGroup& group) {
  TORCH_CHECK_VALUE(min_val.dim() <= kMostDims, kReduce, ": min_val must have at most ", kMostDims, " dimensions, got ",
                    min_val.dim());
  const bool silent = min_val.dim() == 1 && min_val.numel() == 0;
  // Bins, dimensions and sizes, and once more negated: the largest of both shows whether all are equal.
  std::vector<int64_t> said(2 * (kMostDims + 2), 0);
  said[0] = histogram.defined() ? histogram.size(-1) : 0;
  said[1] = min_val.dim();
  std::copy(min_val.sizes().begin(), min_val.sizes().end(), said.begin() + 2);
  for (int64_t i = 0; i < kMostDims + 2; ++i) {
    said[i] = silent && i > 0 ? kSilent : said[i];
    said[kMostDims + 2 + i] = silent && i > 0 ? kSilent : -said[i];
  }
  const auto heard =
      all_reduced(at::tensor(said, at::kLong).to(min_val.device()), c10d::ReduceOp::MAX, group).to(at::kCPU);
  const auto* most = heard.const_data_ptr<int64_t>();
  const auto* least = most + kMostDims + 2;
  const bool none_spoke = most[1] == kSilent;
  for (int64_t i = 0; i < (none_spoke ? 1 : kMostDims + 2); ++i) {
    TORCH_CHECK_VALUE(most[i] == -least[i], kReduce, ": the ranks' states differ in ",
                      i == 0 ? "bins" : (i == 1 ? "dimensions" : "shape"), ": ", -least[i], " and ", most[i],
                      "; the state is unchanged. Give all ranks the same model");
  }
  return none_spoke ? std::vector<int64_t>{0} : std::vector<int64_t>(most + 2, most + 2 + most[1]);
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

}  // namespace

void reduce_state(const at::Tensor& min_val, const at::Tensor& max_val, const at::Tensor& histogram,
                  c10d::ProcessGroup& group) {
  at::NoGradGuard no_grad;
  const auto shape = agreed_shape(min_val, histogram, group);
  if (shape == std::vector<int64_t>{0}) {
    return;
  }
  const bool unseen = min_val.numel() == 0;
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const auto low = unseen ? at::full(shape, kInf, min_val.options()) : min_val;
  const auto high = unseen ? at::full(shape, -kInf, max_val.options()) : max_val;
  const auto new_low = all_reduced(low, c10d::ReduceOp::MIN, group);
  const auto new_high = all_reduced(high, c10d::ReduceOp::MAX, group);
  if (histogram.defined()) {
    auto sizes = shape;
    sizes.push_back(histogram.size(-1));
    const auto own = unseen ? at::zeros(sizes, histogram.options()) : histogram;
    const auto counts = merged_counts(own, {low, high}, {new_low, new_high}, group);
    histogram.resize_(counts.sizes()).copy_(counts);
  }
  min_val.resize_(shape).copy_(new_low);
  max_val.resize_(shape).copy_(new_high);
}

void reduce_observers(torch::nn::Module& module, c10d::ProcessGroup& group) {
  at::NoGradGuard no_grad;
  module.apply([&](torch::nn::Module& each) {
    if (auto* observer = dynamic_cast<Observer*>(&each)) {
      reduce_state(observer->min_val, observer->max_val, observer->histogram, group);
    } else if (auto* quantizer = dynamic_cast<FakeQuantizeImpl*>(&each)) {
      reduce_state(quantizer->min_val, quantizer->max_val, {}, group);
    }
  });
  module.apply([](torch::nn::Module& each) {  // now that the observers inside quantisers agree
    if (auto* quantizer = dynamic_cast<FakeQuantizeImpl*>(&each)) {
      quantizer->update_qparams();
    }
  });
}

}  // namespace torchslim::quant
