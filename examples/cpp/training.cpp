// SPDX-License-Identifier: BSD-3-Clause
#include "training.h"

#include <fmt/format.h>

#include <chrono>
#include <iostream>

namespace {

constexpr double kWarmUp = 0.2;

double learning_rate(double peak, double progress) {
  return peak * (progress < kWarmUp ? progress / kWarmUp : (1 - progress) / (1 - kWarmUp));
}

void set_learning_rate(torch::optim::Optimizer& optimizer, double lr) {
  for (auto& group : optimizer.param_groups()) {
    group.options().set_lr(lr);
  }
}

}  // namespace

int64_t steps_of(const Stage& stage, const ImageSet& set) {
  return stage.epochs * ((set.labels.size(0) + stage.batch - 1) / stage.batch);
}

void train(const Stage& stage, const ImageSet& set, torch::optim::Optimizer& optimizer, at::Generator& generator) {
  const int64_t steps = steps_of(stage, set);
  const auto start = std::chrono::steady_clock::now();
  int64_t step = 0;
  for (int64_t epoch = 1; epoch <= stage.epochs; ++epoch) {
    double loss_sum = 0;
    const auto order = torch::randperm(set.labels.size(0), generator, torch::kLong).split(stage.batch);
    for (const auto& places : order) {
      set_learning_rate(optimizer, learning_rate(stage.peak_lr, (step + 0.5) / steps));
      const auto images = to_float(shifted(set.images.index_select(0, places), generator));
      const auto loss = stage.loss(images, set.labels.index_select(0, places), places);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      stage.after_step();
      loss_sum += loss.item<double>();
      ++step;
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    std::cout << fmt::format("{:8} epoch {}/{}  loss {:.4f}  {:.0f} s, {:.0f} s left", stage.name, epoch, stage.epochs,
                             loss_sum / order.size(), elapsed.count(), elapsed.count() / step * (steps - step))
              << std::endl;
  }
}

at::Tensor logits_of(const Forward& forward, const ImageSet& set) {
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> logits;
  for (const auto& images : set.images.split(500)) {
    logits.push_back(forward(to_float(images)));
  }
  return torch::cat(logits);
}

double accuracy(const at::Tensor& logits, const at::Tensor& labels) {
  return 100 * logits.argmax(1).eq(labels).to(torch::kDouble).mean().item<double>();
}
