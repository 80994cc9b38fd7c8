// SPDX-License-Identifier: BSD-3-Clause
// The same net as in tests/python/graph/test_capture_both.py, with the same graph.
#include <torchslim/graph/capture.h>

#include "cpp/catch.hpp"

namespace nn = torch::nn;
namespace F = torch::nn::functional;

namespace {

constexpr const char* kExpected =
#include "reference/small_net_graph.inc"
    ;

struct SmallNetImpl : nn::Module {
  SmallNetImpl() {
    conv = register_module("conv", nn::Conv2d(nn::Conv2dOptions(3, 6, 3).stride(2).padding(1).groups(3).bias(false)));
    norm = register_module("norm", nn::BatchNorm2d(nn::BatchNorm2dOptions(6).eps(0.001)));
    linear = register_module("linear", nn::Linear(6, 4));
  }

  at::Tensor forward(at::Tensor x) {
    x = F::relu6(norm(conv(x)));
    x = F::max_pool2d(x, F::MaxPool2dFuncOptions(3).stride(2).padding(1).ceil_mode(true));
    x = torch::relu(x + F::avg_pool2d(x, F::AvgPool2dFuncOptions(3).stride(1).padding(1).count_include_pad(false)));
    x = torch::adaptive_avg_pool2d(x, {1, 1});
    return linear(x.view({x.size(0), -1}));
  }

  nn::Conv2d conv{nullptr};
  nn::BatchNorm2d norm{nullptr};
  nn::Linear linear{nullptr};
};
TORCH_MODULE(SmallNet);

}  // namespace

TEST_CASE("capture: C++ and Python give the same graph for the same net", "[graph][capture]") {
  SmallNet net;
  const auto captured = torchslim::graph::capture(net, torch::randn({2, 3, 9, 9}));
  CHECK(torchslim::graph::to_json(captured) == kExpected);
}
