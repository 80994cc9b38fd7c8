// SPDX-License-Identifier: BSD-3-Clause
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torchslim/quant/hessian_trace.h>
#include <torchslim/quant/layers.h>

#include "cpp/catch.hpp"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("hessian_trace: exact where the Hessian is diagonal", "[quant][hessian_trace]") {
  const auto a = at::randn({3, 2}).requires_grad_(true);
  const auto b = at::randn({4}).requires_grad_(true);
  const auto unused = at::randn({2}).requires_grad_(true);
  const auto loss = (a.square().sum() * 3 + b.pow(3).sum()) / 2;
  const auto traces = hessian_trace(loss, {a, b, unused}, HessianTraceOptions().samples(2));
  CHECK(traces[0] == Approx(18.0));
  CHECK(traces[1] == Approx(3 * b.sum().item<double>()).margin(1e-5));
  CHECK(traces[2] == 0.0);
}

TEST_CASE("hessian_trace: near the trace of a full Hessian, the same for one seed", "[quant][hessian_trace]") {
  const auto matrix = at::randn({6, 6}, at::kDouble);
  const auto hessian = matrix.matmul(matrix.t());
  const auto x = at::randn({6}, at::kDouble).requires_grad_(true);
  const auto loss = 0.5 * x.dot(hessian.matmul(x));
  const auto options = HessianTraceOptions().samples(2000).seed(1);
  const double trace = hessian.trace().item<double>();
  CHECK(hessian_trace(loss, {x}, options)[0] == Approx(trace).epsilon(0.1));
  CHECK(hessian_trace(loss, {x}, options) == hessian_trace(loss, {x}, options));
  CHECK(hessian_trace(loss, {x}, options) != hessian_trace(loss, {x}, HessianTraceOptions(options).seed(2)));
}

TEST_CASE("hessian_trace: layers of a module, over batches, in eval", "[quant][hessian_trace]") {
  torch::nn::Sequential model(ConvBnAct2d(torch::nn::Conv2dOptions(3, 4, 3).bias(false)), GlobalAvgPool2d(), Flatten(),
                              Linear(4, 2));
  const auto images = at::randn({4, 3, 6, 6});
  std::vector<bool> modes;
  const auto traces = hessian_trace(
      *model,
      [&](int64_t batch) {
        modes.push_back(model->is_training());
        QuantTensor x(images * static_cast<double>(batch + 1));
        x = model[0]->as<ConvBnAct2dImpl>()->forward(x);
        x = Flatten()->forward(GlobalAvgPool2d()->forward(x));
        return model[3]->as<LinearImpl>()->forward(x).value.square().mean();
      },
      2);
  REQUIRE(traces.size() == 2);
  CHECK(traces[0].layer == "0.conv");
  CHECK(traces[1].layer == "3");
  CHECK(traces[1].trace > 0);
  CHECK(modes == std::vector<bool>{false, false});
  CHECK(model->is_training());
}

TEST_CASE("hessian_trace: refusals", "[quant][hessian_trace]") {
  const auto x = at::randn({2}).requires_grad_(true);
  CHECK_THROWS_WITH(hessian_trace(x.square(), {x}), ContainsSubstring("the loss must be one number"));
  CHECK_THROWS_WITH(hessian_trace(x.detach().sum(), {x}), ContainsSubstring("that depends on the parameters"));
  CHECK_THROWS_WITH(hessian_trace(x.square().sum(), {x.detach()}), ContainsSubstring("has no gradient"));
  CHECK_THROWS_WITH(hessian_trace(x.square().sum(), {x}, HessianTraceOptions().samples(0)),
                    ContainsSubstring("samples must be >= 1, got 0"));
  CHECK_THROWS_WITH(hessian_trace((x * 0).square().sqrt().sum(), {x}), ContainsSubstring("are not finite"));
  torch::nn::Sequential empty{torch::nn::ReLU()};
  CHECK_THROWS_WITH(hessian_trace(
                        *empty, [&](int64_t) { return x.sum(); }, 1),
                    ContainsSubstring("holds no convolution and no linear layer"));
}
