// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/models/weights.h>

#include "cpp/catch.hpp"
#include "temporary_file.h"

using torchslim::models::load_weights;
using torchslim::models::save_weights;
using torchslim::models::state_dict;
using torchslim::models::TensorDict;

namespace {

torch::nn::Sequential network() {
  return torch::nn::Sequential(torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 4, 3).bias(false)),
                               torch::nn::BatchNorm2d(4), torch::nn::Linear(4, 2));
}

}  // namespace

TEST_CASE("weights: parameters and buffers come back with the same bits", "[models][weights]") {
  const TemporaryFile file;
  auto source = network();
  auto copy = network();
  source[1]->as<torch::nn::BatchNorm2d>()->forward(at::randn({2, 4, 3, 3}));
  save_weights(*source, file.path);
  load_weights(*copy, file.path);
  const TensorDict expected = state_dict(*source);
  CHECK(expected.size() == 8);
  for (const auto& item : state_dict(*copy)) {
    INFO(item.key());
    CHECK(at::equal(item.value(), expected[item.key()]));
  }
  CHECK(expected["1.num_batches_tracked"].item<int64_t>() == 1);
  CHECK(copy->parameters()[0].requires_grad());
}

TEST_CASE("weights: a file that does not fit changes nothing and says what differs", "[models][weights]") {
  const TemporaryFile file;
  auto module = network();
  const at::Tensor before = module->parameters()[0].clone();
  const auto refusal_of = [&](const TensorDict& tensors) -> std::string {
    torchslim::models::save_tensors(file.path, tensors);
    try {
      load_weights(*module, file.path);
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "";
  };
  TensorDict missing;
  TensorDict other;
  for (const auto& item : state_dict(*network())) {
    if (item.key() != "2.bias") {
      missing.insert(item.key(), item.value());
    }
    other.insert(item.key(), item.key() == "2.weight" ? at::zeros({2, 5}) : item.value());
  }
  CHECK_THAT(refusal_of(missing), ContainsSubstring("the file lacks `2.bias`"));
  CHECK_THAT(refusal_of(other), ContainsSubstring("`2.weight` is Float [2, 5], expected Float [2, 4]"));
  other["2.weight"] = at::zeros({2, 4}, at::kDouble);
  CHECK_THAT(refusal_of(other), ContainsSubstring("`2.weight` is Double [2, 4], expected Float [2, 4]"));
  missing.insert("2.bias", at::zeros(2));
  missing.insert("3.bias", at::zeros(2));
  CHECK_THAT(refusal_of(missing), ContainsSubstring("the model lacks `3.bias`"));
  CHECK_THAT(refusal_of(TensorDict()), ContainsSubstring("and 3 more"));
  CHECK(at::equal(module->parameters()[0], before));
}
