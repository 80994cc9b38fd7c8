// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/observers.h>
#include <torchslim/quant/reduce_observers.h>

#include <map>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "cpp/catch.hpp"

using namespace torchslim::quant;

namespace {

struct Done : c10d::Work {
  bool wait(std::chrono::milliseconds) override { return true; }
};

// One rank by itself, whose collectives change nothing; two ranks are tested from Python, with gloo.
struct OneRank : c10d::Backend {
  OneRank() : Backend(0, 1) {}
  const std::string getBackendName() const override { return "one_rank"; }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>&, const c10d::AllreduceOptions&) override {
    return c10::make_intrusive<Done>();
  }
};

c10::intrusive_ptr<c10d::ProcessGroup> one_rank() {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(0, 1);
  const auto type = c10d::ProcessGroup::BackendType::CUSTOM;
  group->setBackend(c10::DeviceType::CPU, type, c10::make_intrusive<OneRank>());
  group->setDefaultBackend(type);
  return group;
}

}  // namespace

TEST_CASE("reduce_observers: a rank by itself keeps what it saw", "[quant][reduce_observers]") {
  torch::nn::Sequential model(MinMaxObserver(ObserverOptions().axis(1)), HistogramObserver(), FakeQuantize(),
                              MinMaxObserver(ObserverOptions().axis(0)));
  const auto x = at::randn({5, 3});
  model[0]->as<MinMaxObserverImpl>()->forward(x);
  model[1]->as<HistogramObserverImpl>()->forward(x);
  model[2]->as<FakeQuantizeImpl>()->forward(x);  // the last has seen nothing
  std::map<std::string, at::Tensor> before;
  for (const auto& buffer : model->named_buffers()) {
    before[buffer.key()] = buffer.value().clone();
  }
  const auto group = one_rank();
  reduce_observers(*model, *group);
  for (const auto& buffer : model->named_buffers()) {
    CHECK(at::equal(buffer.value(), before.at(buffer.key())));
  }
}

TEST_CASE("reduce_observers: a histogram that does not fit its range is refused", "[quant][reduce_observers]") {
  HistogramObserver observer;
  observer->forward(at::ones({3}));
  observer->histogram.fill_(1);
  const auto group = one_rank();
  CHECK_THROWS_WITH(reduce_observers(*observer, *group), Catch::Contains("does not fit min_val and max_val"));
}
