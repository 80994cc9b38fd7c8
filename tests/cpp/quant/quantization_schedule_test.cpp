// SPDX-License-Identifier: BSD-3-Clause
#include <torch/torch.h>
#include <torchslim/quant/layers.h>
#include <torchslim/quant/quantization_schedule.h>

#include "cpp/catch.hpp"

namespace quant = torchslim::quant;
using quant::QuantizationSchedule;
using quant::ScheduleOptions;
using quant::ScheduleState;

namespace {

struct NetImpl : torch::nn::Module {
  quant::Input input;
  quant::ConvBnAct2d conv{torch::nn::Conv2dOptions(3, 4, 3).bias(false)};
  NetImpl() {
    register_module("input", input);
    register_module("conv", conv);
  }
};

std::shared_ptr<NetImpl> prepared() {
  auto net = std::make_shared<NetImpl>();
  quant::prepare(*net);
  return net;
}

ScheduleState switches(NetImpl& net) {
  const auto quantizer = net.conv->output_fake_quantize();
  return {quantizer->observer_enabled.item<bool>(), quantizer->fake_quant_enabled.item<bool>(),
          !net.conv->bn->is_training()};
}

}  // namespace

TEST_CASE("QuantizationSchedule: switches follow the number of steps", "[quant][schedule]") {
  const auto net = prepared();
  const auto options =
      ScheduleOptions().observe_from(1).quantize_from(2).freeze_observers_at(4).freeze_batch_norm_at(3);
  QuantizationSchedule schedule(net, options);
  CHECK(switches(*net) == ScheduleState{false, false, false});
  schedule.step();
  CHECK(switches(*net) == ScheduleState{true, false, false});
  schedule.step();
  CHECK(switches(*net) == ScheduleState{true, true, false});
  schedule.step();
  CHECK(switches(*net) == ScheduleState{true, true, true});
  schedule.step();
  CHECK(switches(*net) == ScheduleState{false, true, true});

  const auto other = prepared();
  QuantizationSchedule fresh(other, options);
  fresh.load_state_dict(schedule.state_dict());
  CHECK(switches(*other) == switches(*net));
  CHECK_THROWS_WITH(fresh.load_state_dict(torch::OrderedDict<std::string, at::Tensor>()),
                    ContainsSubstring("a number of steps"));
}

TEST_CASE("QuantizationSchedule: an order that makes no sense is refused", "[quant][schedule]") {
  const auto net = prepared();
  CHECK_THROWS_WITH(QuantizationSchedule(net, ScheduleOptions().observe_from(-1)), ContainsSubstring(">= 0, got -1"));
  CHECK_THROWS_WITH(QuantizationSchedule(net, ScheduleOptions().observe_from(3)), ContainsSubstring("needs a range"));
  CHECK_THROWS_WITH(QuantizationSchedule(net, ScheduleOptions().freeze_observers_at(0)),
                    ContainsSubstring("must be after observe_from"));
  CHECK_THROWS_WITH(QuantizationSchedule(std::make_shared<NetImpl>(), {}), ContainsSubstring("holds no quantiser"));
}
