// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/torch.h>

#include <functional>
#include <string>

#include "fashion_mnist.h"

using Forward = std::function<at::Tensor(const at::Tensor& images)>;

/// One stage of training. `loss` gets a batch of float images, its labels and its places in the training set.
struct Stage {
  std::string name;
  int64_t epochs = 1;
  int64_t batch = 128;
  double peak_lr = 0.1;  // rises over the first fifth of the steps, then falls to 0, both linearly
  std::function<at::Tensor(const at::Tensor& images, const at::Tensor& labels, const at::Tensor& places)> loss;
  std::function<void()> after_step = [] {};
};

/// Returns how many steps `stage` takes over `set`.
int64_t steps_of(const Stage& stage, const ImageSet& set);

/// Runs `stage` over `set`, shifting images by up to a pixel, and prints a line an epoch.
void train(const Stage& stage, const ImageSet& set, torch::optim::Optimizer& optimizer, at::Generator& generator);

/// Returns the logits of all images of `set`, in batches of 500, without gradients.
at::Tensor logits_of(const Forward& forward, const ImageSet& set);

/// Returns the share of rows of `logits` whose largest value is at their label, in percent.
double accuracy(const at::Tensor& logits, const at::Tensor& labels);
