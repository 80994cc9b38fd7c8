// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torchslim/deploy/evaluate.h>
#include <torchslim/deploy/reference.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace torchslim::deploy {
namespace {

void check_logits(const at::Tensor& logits, const char* who, const char* name) {
  TORCH_CHECK_TYPE(logits.scalar_type() == at::kFloat, who, ": ", name, " must be float32, got ", logits.scalar_type());
  TORCH_CHECK_VALUE(logits.dim() == 2 && logits.numel() > 0, who, ": ", name, " must be (N, C) and not empty, got ",
                    logits.sizes());
}

// Integers often tie, and which of equal logits argmax returns is not promised: the first, here.
std::vector<int64_t> first_largest(const at::Tensor& logits) {
  const at::Tensor contiguous = logits.detach().contiguous();
  const float* row = contiguous.const_data_ptr<float>();
  const int64_t columns = logits.size(1);
  std::vector<int64_t> largest;
  for (const auto n : c10::irange(logits.size(0))) {
    const float* begin = row + n * columns;
    largest.push_back(std::max_element(begin, begin + columns) - begin);
  }
  return largest;
}

double share_equal(const std::vector<int64_t>& left, const std::vector<int64_t>& right) {
  int64_t equal = 0;
  for (const auto i : c10::irange(left.size())) {
    equal += left[i] == right[i] ? 1 : 0;
  }
  return static_cast<double>(equal) / static_cast<double>(left.size());
}

}  // namespace

at::Tensor run_batches(PtlModel& model, const at::Tensor& images, int64_t batch) {
  TORCH_CHECK_VALUE(batch > 0, "torchslim::run_batches: batch must be > 0, got ", batch);
  TORCH_CHECK_VALUE(images.dim() > 0 && images.size(0) > 0, "torchslim::run_batches: there are no images, got shape ",
                    images.sizes());
  std::vector<at::Tensor> outputs;
  for (int64_t begin = 0; begin < images.size(0); begin += batch) {
    outputs.push_back(model.forward(images.narrow(0, begin, std::min(batch, images.size(0) - begin))));
  }
  return at::cat(outputs);
}

double accuracy(const at::Tensor& logits, const at::Tensor& targets) {
  constexpr const char* kWho = "torchslim::accuracy";
  check_logits(logits, kWho, "logits");
  TORCH_CHECK_TYPE(targets.scalar_type() == at::kLong, kWho, ": targets must be int64, got ", targets.scalar_type());
  TORCH_CHECK_VALUE(targets.dim() == 1 && targets.size(0) == logits.size(0), kWho,
                    ": targets must hold one class for each of the ", logits.size(0), " rows, got shape ",
                    targets.sizes());
  const at::Tensor contiguous = targets.contiguous();
  const int64_t* target = contiguous.const_data_ptr<int64_t>();
  return share_equal(first_largest(logits), {target, target + targets.numel()});
}

int64_t count_reference_differences(const at::Tensor& outputs, const IntegerGraph& graph, const at::Tensor& images) {
  TORCH_CHECK_VALUE(!graph.nodes.empty() && !graph.nodes.back().gives_floats(),
                    "torchslim::count_reference_differences: the network ends in floats, which depend on the order of ",
                    "sums; compare_outputs without a step says how far they are");
  const IntegerResult expected = run_integer(graph, images);
  TORCH_CHECK_VALUE(outputs.sizes() == expected.codes.sizes(),
                    "torchslim::count_reference_differences: outputs must have the shape ", expected.codes.sizes(),
                    " of the graph's result, got ", outputs.sizes());
  const IntegerNode& last = graph.nodes.back();
  const at::Tensor steps = (outputs.to(at::kDouble) / static_cast<double>(last.scale)).round();
  const at::Tensor codes = expected.codes.to(at::kDouble) - static_cast<int64_t>(last.zero_point);
  return steps.ne(codes).sum().item<int64_t>();
}

Agreement compare_outputs(const at::Tensor& file, const at::Tensor& fake_quantised, std::optional<double> step) {
  constexpr const char* kWho = "torchslim::compare_outputs";
  check_logits(file, kWho, "file");
  check_logits(fake_quantised, kWho, "fake_quantised");
  TORCH_CHECK_VALUE(file.sizes() == fake_quantised.sizes(), kWho, ": expected equal shapes, got ", file.sizes(),
                    " and ", fake_quantised.sizes());
  TORCH_CHECK_VALUE(!step || *step > 0, kWho, ": step must be > 0, got ", step.value_or(0));
  Agreement agreement;
  agreement.top1 = share_equal(first_largest(file), first_largest(fake_quantised));
  const at::Tensor trained = fake_quantised.detach().to(at::kDouble);
  const at::Tensor away = (file.detach().to(at::kDouble) - trained).abs();
  if (step) {
    const at::Tensor steps = away / *step;
    agreement.max_steps = static_cast<int64_t>(steps.max().round().item<double>());
    agreement.mean_steps = steps.mean().item<double>();
  } else {
    const double largest = std::max(trained.abs().max().item<double>(), std::numeric_limits<double>::min());
    agreement.max_relative = away.max().item<double>() / largest;
  }
  return agreement;
}

}  // namespace torchslim::deploy
