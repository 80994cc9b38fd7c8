// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/batches.h>
#include <torchslim/quant/calibrate.h>

#include "cpp/catch.hpp"
#include "cpp/quant/small_net.h"

using namespace torchslim::quant;  // NOLINT

TEST_CASE("calibrate: moves ranges and nothing else", "[quant][calibrate]") {
  auto net = small_net::prepared();
  net->train();
  net->first->bn->eval();
  const auto before = small_net::state(*net);
  const auto data = small_net::batches();
  std::vector<int64_t> done;
  calibrate(net, data, [&](int64_t i, int64_t total) { done.push_back(100 * i + total); });
  CHECK(done == std::vector<int64_t>{104, 204, 304, 404});
  CHECK((net->is_training() && !net->first->bn->is_training() && net->depthwise->bn->is_training()));
  const auto quantizer = net->input->output_fake_quantize();
  float low = data[0].min().item<float>();
  for (size_t i = 1; i < data.size(); ++i) {
    low = low + 0.1f * (data[i].min().item<float>() - low);
  }
  CHECK(quantizer->min_val.item<float>() == Approx(low));
  CHECK(net->classifier->output_fake_quantize()->scale.item<float>() != 1);
  const auto after = small_net::state(*net);
  const size_t parameters = net->parameters().size();
  CHECK(small_net::same({before.begin(), before.begin() + parameters}, {after.begin(), after.begin() + parameters}));
  for (const auto& norm : {net->first->bn, net->depthwise->bn}) {
    CHECK(norm->num_batches_tracked.item<int64_t>() == 0);
    CHECK(norm->running_var.max().item<float>() <= 0.5f);
  }
}

TEST_CASE("calibrate: a stream can be read as a list is", "[quant][calibrate]") {
  auto one = small_net::prepared();
  auto two = small_net::prepared();
  const auto data = small_net::batches();
  calibrate(one, data);
  calibrate(RunnableModule(*two, [&](at::Tensor x) { return two->forward(x); }), Batches([&](const Batches::Use& use) {
              for (const auto& batch : data) {
                use(batch);
              }
            }));
  CHECK(small_net::same(small_net::state(*one), small_net::state(*two)));
}

TEST_CASE("calibrate: after an error the module is as it was", "[quant][calibrate]") {
  auto net = small_net::prepared();
  const auto before = small_net::state(*net);
  auto broken = small_net::batches(2);
  broken[1][0][0][0][0] = NAN;
  CHECK_THROWS_WITH(calibrate(net, broken), ContainsSubstring("torchslim::quant::calibrate: batch 1 holds NaN"));
  CHECK_THROWS_WITH(calibrate(net, std::vector<at::Tensor>{}), ContainsSubstring("there is no batch"));
  CHECK_THROWS_WITH(calibrate(net, {{at::empty({0, 2, 8, 8})}}), ContainsSubstring("batch 0 is empty"));
  net->fails = true;
  CHECK_THROWS_WITH(calibrate(net, small_net::batches()), ContainsSubstring("as asked"));
  CHECK(small_net::same(before, small_net::state(*net)));
  CHECK(!net->classifier->output_fake_quantize()->is_training());
  disable_observer(*net);
  CHECK_THROWS_WITH(calibrate(net, small_net::batches()), ContainsSubstring("no quantiser of the module observes"));
}
