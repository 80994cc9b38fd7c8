// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/prune/magnitude_masks.h>

#include <optional>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::core::CpuCapability;
using torchslim::prune::magnitude_masks;
using torchslim::prune::Scope;

namespace {

// The contract by a stable sort of everything.
std::vector<at::Tensor> masks_by_sorting(const std::vector<at::Tensor>& tensors, double sparsity) {
  std::vector<at::Tensor> flat;
  std::vector<int64_t> sizes;
  for (const auto& tensor : tensors) {
    flat.push_back(tensor.abs().flatten().to(at::kDouble));
    sizes.push_back(tensor.numel());
  }
  const auto magnitudes = at::cat(flat);
  const auto count = static_cast<int64_t>(std::nearbyint(magnitudes.numel() * sparsity));
  auto keep = at::ones({magnitudes.numel()}, at::kBool);
  const auto order = std::get<1>(at::sort(magnitudes, /*stable=*/true, 0, /*descending=*/false));
  keep.index_fill_(0, order.slice(0, 0, count), at::Scalar(false));
  auto masks = keep.split_with_sizes(sizes);
  for (size_t i = 0; i < masks.size(); ++i) {
    masks[i] = masks[i].view(tensors[i].sizes());
  }
  return masks;
}

}  // namespace

TEST_CASE("magnitude_masks: equal to a stable sort, for every dtype and instruction set", "[prune][magnitude_masks]") {
  const auto dtype = GENERATE(at::kFloat, at::kDouble, at::kBFloat16, at::kHalf);
  const auto capability = GENERATE(as<std::optional<CpuCapability>>{}, CpuCapability::kPortable, std::nullopt);
  torchslim::core::force_cpu_capability(capability);
  torch::manual_seed(0);
  const std::vector<at::Tensor> tensors = {torch::randn({40, 25, 3, 3}).to(dtype), torch::empty({0}, dtype),
                                           torch::randint(-2, 3, {50000}).to(dtype), torch::randn({1}).to(dtype)};
  for (const double sparsity : {0.0, 0.2, 0.5, 0.999, 1.0}) {
    const auto expected = masks_by_sorting(tensors, sparsity);
    const auto masks = magnitude_masks(tensors, sparsity);
    const auto by_layer = magnitude_masks(tensors, sparsity, Scope::kLayer);
    for (size_t i = 0; i < tensors.size(); ++i) {
      CHECK(at::equal(masks[i], expected[i]));
      CHECK(at::equal(by_layer[i], masks_by_sorting({tensors[i]}, sparsity)[0]));
    }
  }
  torchslim::core::force_cpu_capability(std::nullopt);
}

TEST_CASE("magnitude_masks: refuses what it cannot rank", "[prune][magnitude_masks]") {
  const auto one = torch::ones({3});
  CHECK_THROWS_WITH(magnitude_masks({one}, 1.5), ContainsSubstring("sparsity must be in [0, 1], got 1.5"));
  CHECK_THROWS_WITH(magnitude_masks({one, one / 0 * 0}, 0.5, Scope::kGlobal, {"a", "b"}),
                    ContainsSubstring("`b` (tensors[1]) holds 3 NaN among 3 values"));
  CHECK_THROWS_AS(magnitude_masks({one.to(at::kInt)}, 0.5), c10::TypeError);
  CHECK_THROWS_AS(magnitude_masks({one, one.to(at::kDouble)}, 0.5), c10::ValueError);
}

TEST_CASE("tighten_masks: nothing grows back", "[prune][magnitude_masks]") {
  const auto zeros = torch::zeros({6});
  const auto previous = torch::tensor({true, true, true, true, true, false});
  const auto tightened = torchslim::prune::detail::tighten_masks({zeros}, {previous}, 0.5, Scope::kGlobal, {});
  CHECK(at::equal(tightened[0], torch::tensor({false, false, true, true, true, false})));
  const auto relaxed = torchslim::prune::detail::tighten_masks({zeros}, {previous}, 0.0, Scope::kGlobal, {});
  CHECK(at::equal(relaxed[0], previous));
}
