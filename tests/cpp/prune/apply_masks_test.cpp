// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/prune/apply_masks.h>

#include <cmath>

#include "cpp/catch.hpp"

using torchslim::prune::apply_masks_;

TEST_CASE("apply_masks_: pruned values become +0, whatever they were", "[prune][apply_masks]") {
  const auto dtype = GENERATE(at::kFloat, at::kDouble, at::kBFloat16, at::kHalf);
  auto tensor = torch::tensor({1.0, -2.0, std::nan(""), -HUGE_VAL, 5.0}).to(dtype);
  apply_masks_({tensor}, {torch::tensor({true, false, false, false, true})});
  CHECK(at::equal(tensor, torch::tensor({1.0, 0.0, 0.0, 0.0, 5.0}).to(dtype)));
  CHECK_FALSE(tensor.signbit().any().item<bool>());
}

TEST_CASE("apply_masks_: refuses before it writes", "[prune][apply_masks]") {
  auto tensor = torch::ones({2});
  const auto nothing = torch::zeros({2}, at::kBool);
  CHECK_THROWS_WITH(apply_masks_({tensor, torch::ones({3})}, {nothing, nothing}),
                    ContainsSubstring("masks[1] must have the shape of its tensor [3], got [2]"));
  CHECK_THROWS_AS(apply_masks_({tensor}, {nothing.to(at::kFloat)}), c10::TypeError);
  CHECK(at::equal(tensor, torch::ones({2})));
}
