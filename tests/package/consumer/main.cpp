// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/torchslim.h>

#include <iostream>

// Trains a quantised, pruned student for five steps against a fixed teacher and prints the loss of
// each.
int main() {
  torch::manual_seed(0);
  auto student = torchslim::models::MobileNetV1(
      torchslim::models::MobileNetV1Options().in_channels(1).channels({8, 16}).strides({2, 1}));
  torchslim::quant::prepare(*student);
  torch::optim::SGD optimizer(student->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  torchslim::prune::MagnitudePruner pruner(*student, torchslim::prune::OneShotSchedule(2, 0.5), optimizer);
  torchslim::distill::KDLoss loss_function;

  const auto images = torch::rand({16, 1, 28, 28});
  const auto teacher_logits = torch::randn({16, 10});
  const auto target = teacher_logits.argmax(1);
  double first = 0, last = 0;
  for (int step = 0; step < 5; ++step) {
    optimizer.zero_grad();
    const auto loss = loss_function(student->forward(images), teacher_logits, target);
    loss.backward();
    optimizer.step();
    pruner.step();
    last = loss.item<double>();
    first = step == 0 ? last : first;
    std::cout << "step " << step << " loss " << last << " sparsity " << pruner.sparsity() << "\n";
  }
  return last < first && pruner.sparsity() >= 0.49 ? 0 : 1;
}
