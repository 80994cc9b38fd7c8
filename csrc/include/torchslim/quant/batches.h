// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torchslim/api.h>

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace torchslim::quant {

/// Hears how far a long call is: `done` of `total` steps, or total 0 where that is not known.
using Progress = std::function<void(int64_t done, int64_t total)>;

/// The batches of inputs that a method for trained models reads, as often as it needs them.
///
/// Example: calibrate(net, {{first_images, second_images}});
///          calibrate(net, Batches([&](const Batches::Use& use) { for (auto& b : *loader) use(b.data); }));
class TORCHSLIM_API Batches {
 public:
  using Use = std::function<void(const at::Tensor& images)>;

  Batches(std::vector<at::Tensor> batches);  // NOLINT: implicit, as tests and short programs hold their batches
  /// `for_each` calls its argument with each batch, the same ones in the same order each time; `count` is how many, 0 if
  /// that is not known.
  explicit Batches(std::function<void(const Use& use)> for_each, int64_t count = 0)
      : for_each_(std::move(for_each)), count_(count) {}

  /// Calls `use` with each batch, and then `progress`.
  /// Throws c10::ValueError, with `who` in front, if there is none or one is empty or holds NaN or infinity.
  void for_each(const char* who, const Use& use, const Progress& progress = {}) const;

 private:
  std::function<void(const Use& use)> for_each_;
  int64_t count_;
};

/// A module and how it is run. Made of a module holder (`models::MobileNetV2`, std::shared_ptr<MyNet>), or of both parts.
class TORCHSLIM_API RunnableModule {
 public:
  template <typename Holder>
    requires requires(Holder& holder, at::Tensor x) { at::Tensor(holder->forward(x)); }
  RunnableModule(Holder& holder)  // NOLINT: implicit, as holders are what users have
      : module(*holder),
        forward([holder](at::Tensor x) mutable -> at::Tensor { return holder->forward(std::move(x)); }) {}
  RunnableModule(torch::nn::Module& module, std::function<at::Tensor(at::Tensor)> forward)
      : module(module), forward(std::move(forward)) {}

  torch::nn::Module& module;
  std::function<at::Tensor(at::Tensor)> forward;
};

}  // namespace torchslim::quant
