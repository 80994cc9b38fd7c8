// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/quant/fold.h>

#include <cmath>
#include <limits>

#include "cpp/catch.hpp"

using torchslim::quant::BatchNormTensors;
using torchslim::quant::dequantize_weight;
using torchslim::quant::fit_bias;
using torchslim::quant::fold_batch_norm;
using torchslim::quant::fold_layer;
using torchslim::quant::FoldedWeight;
using torchslim::quant::quantize_weight;
using torchslim::quant::QuantizedWeight;
using torchslim::quant::round_bias;

namespace {

const at::Tensor kInputScale = at::tensor(0.02f);

BatchNormTensors random_batch_norm(int64_t channels) {
  return {at::randn({channels}), at::randn({channels}), at::randn({channels}), at::rand({channels}) + 0.1, 1e-5};
}

/// conv -> batch norm in float64, nothing folded.
at::Tensor unfolded(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const BatchNormTensors& bn) {
  const auto c = [](const at::Tensor& t) { return t.to(at::kDouble).view({1, -1, 1, 1}); };
  const at::Tensor y = at::conv2d(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
  return (y - c(bn.mean)) / (c(bn.var) + bn.eps).sqrt() * c(bn.gamma) + c(bn.beta);
}

/// The integers of `folded` on x, in float64.
at::Tensor run(const at::Tensor& x, const FoldedWeight& folded) {
  const at::Tensor weight = folded.codes.to(at::kDouble) * folded.scale.to(at::kDouble).view({-1, 1, 1, 1});
  return at::conv2d(x.to(at::kDouble), weight, folded.bias.to(at::kDouble));
}

bool is_on_grid(const FoldedWeight& folded, const at::Tensor& input_scale) {
  const at::Tensor steps = folded.bias.to(at::kDouble) / (folded.scale * input_scale).to(at::kDouble);
  return (steps - steps.round()).abs().max().item<double>() < 1e-3;
}

}  // namespace

TEST_CASE("quantize_weight: codes and scale of each output channel", "[quant][fold]") {
  const at::Tensor weight = at::tensor({-1.27f, 0.005f, 0.635f, 2.54f, 0.0f, -0.03f}).view({2, 3});
  const QuantizedWeight quantized = quantize_weight(weight);
  CHECK(at::equal(quantized.codes, at::tensor({-127, 0, 64, 127, 0, -2}, at::kChar).view({2, 3})));
  CHECK(at::equal(quantized.scale, at::tensor({1.27f / 127, 2.54f / 127})));
}

TEST_CASE("quantize_weight: gives the bits of ATen's fake-quantise", "[quant][fold]") {
  torch::manual_seed(1);
  const at::Tensor weight = at::randn({16, 8, 3, 3}) * at::logspace(-4, 3, 16).view({16, 1, 1, 1});
  const QuantizedWeight quantized = quantize_weight(weight);
  const at::Tensor expected =
      at::fake_quantize_per_channel_affine(weight, quantized.scale, at::zeros({16}, at::kInt), 0, -127, 127);
  CHECK(at::equal(dequantize_weight(quantized.codes, quantized.scale), expected));
  CHECK(at::equal(quantized.codes.abs().flatten(1).amax(1), at::full({16}, 127, at::kChar)));
}

TEST_CASE("quantize_weight: an all-zero or unmeasurably small channel has scale 1", "[quant][fold]") {
  const at::Tensor weight = at::tensor({0.0f, 0.0f, 1e-40f, 0.0f, 1.0f, 0.5f}).view({3, 2});
  const QuantizedWeight quantized = quantize_weight(weight);
  CHECK(at::equal(quantized.scale, at::tensor({1.0f, 1.0f, 1.0f / 127})));
  CHECK(quantized.codes[1].abs().max().item<int>() == 0);
}

TEST_CASE("quantize_weight: refuses what cannot be rounded", "[quant][fold]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(quantize_weight(at::tensor({1.0f, nan}).view({1, 2})),
                    ContainsSubstring("NaN or infinity in channel 0"));
  CHECK_THROWS_WITH(quantize_weight(at::tensor({1.0f, INFINITY}).view({1, 2})), ContainsSubstring("NaN or infinity"));
  CHECK_THROWS_WITH(quantize_weight(at::ones({3})), ContainsSubstring("got shape [3]"));
  CHECK_THROWS_WITH(quantize_weight(at::ones({3, 2}, at::kDouble)), ContainsSubstring("float32"));
}

TEST_CASE("fold_batch_norm: equals the unfolded layers in float64", "[quant][fold]") {
  torch::manual_seed(2);
  const QuantizedWeight quantized = quantize_weight(at::randn({8, 4, 3, 3}));
  const BatchNormTensors bn = random_batch_norm(8);
  CHECK((bn.gamma < 0).any().item<bool>());
  const at::Tensor bias = at::randn({8});
  const at::Tensor x = at::randn({2, 4, 6, 6});
  const FoldedWeight folded =
      fold_batch_norm(quantized.codes, quantized.scale, bias, bn.gamma, bn.beta, bn.mean, bn.var, bn.eps);
  const at::Tensor expected = unfolded(x, dequantize_weight(quantized.codes, quantized.scale), bias, bn);
  CHECK((run(x, folded) - expected).abs().max().item<double>() < 1e-5);
  CHECK(at::equal(folded.codes.abs(), quantized.codes.abs()));
  CHECK((folded.scale > 0).all().item<bool>());
}

TEST_CASE("fold_batch_norm: gamma and beta may be missing", "[quant][fold]") {
  const QuantizedWeight quantized = quantize_weight(at::ones({1, 1, 1, 1}));
  const FoldedWeight folded = fold_batch_norm(quantized.codes, quantized.scale, std::nullopt, std::nullopt,
                                              std::nullopt, at::tensor({3.0f}), at::tensor({4.0f}), 0.0);
  CHECK(folded.scale.item<float>() == 0.5f / 127);
  CHECK(folded.bias.item<float>() == -1.5f);
}

TEST_CASE("fold_batch_norm: gamma zero leaves codes 0, scale 1 and beta", "[quant][fold]") {
  const QuantizedWeight quantized = quantize_weight(at::ones({2, 1, 1, 1}));
  const FoldedWeight folded =
      fold_batch_norm(quantized.codes, quantized.scale, std::nullopt, at::tensor({0.0f, -1e-40f}),
                      at::tensor({0.25f, 0.5f}), at::tensor({3.0f, 3.0f}), at::tensor({1.0f, 1.0f}), 1e-5);
  CHECK(at::equal(folded.codes, at::zeros({2, 1, 1, 1}, at::kChar)));
  CHECK(at::equal(folded.scale, at::ones({2})));
  CHECK(at::allclose(folded.bias, at::tensor({0.25f, 0.5f})));
}

TEST_CASE("fold_batch_norm: refuses broken statistics and wrong shapes", "[quant][fold]") {
  const QuantizedWeight quantized = quantize_weight(at::ones({2, 1, 1, 1}));
  const auto fold = [&](const at::Tensor& mean, const at::Tensor& var) {
    return fold_batch_norm(quantized.codes, quantized.scale, std::nullopt, std::nullopt, std::nullopt, mean, var, 0.0);
  };
  CHECK_THROWS_WITH(fold(at::zeros({2}), at::tensor({1.0f, -1.0f})), ContainsSubstring("NaN or infinity"));
  CHECK_THROWS_WITH(fold(at::tensor({NAN, 0.0f}), at::ones({2})), ContainsSubstring("NaN or infinity"));
  CHECK_THROWS_WITH(fold(at::zeros({3}), at::ones({2})), ContainsSubstring("mean must have one value"));
}

TEST_CASE("round_bias: half to even on the accumulator's grid, identity gradient", "[quant][fold]") {
  const at::Tensor bias = at::tensor({0.5f, 1.5f, -2.5f, 0.3f}).requires_grad_();
  const at::Tensor rounded = round_bias(bias, at::tensor(4.0f), at::full({4}, 0.25f));
  CHECK(at::equal(rounded, at::tensor({0.0f, 2.0f, -2.0f, 0.0f})));
  rounded.backward(at::tensor({1.0f, 2.0f, 3.0f, 4.0f}));
  CHECK(at::equal(bias.grad(), at::tensor({1.0f, 2.0f, 3.0f, 4.0f})));
}

TEST_CASE("fit_bias: rounds the bias of ordinary channels and leaves their codes", "[quant][fold]") {
  torch::manual_seed(3);
  const QuantizedWeight quantized = quantize_weight(at::randn({8, 4}));
  const FoldedWeight folded{quantized.codes, quantized.scale, at::randn({8})};
  const FoldedWeight fitted = fit_bias(folded, kInputScale);
  CHECK(at::equal(fitted.codes, folded.codes));
  CHECK(at::equal(fitted.scale, folded.scale));
  CHECK(at::equal(fitted.bias, round_bias(folded.bias, kInputScale, folded.scale)));
  CHECK(is_on_grid(fitted, kInputScale));
}

TEST_CASE("fit_bias: an all-zero channel keeps its bias", "[quant][fold]") {
  const FoldedWeight folded{at::zeros({3, 2}, at::kChar), at::tensor({1.0f, 400.0f, 1.0f}),
                            at::tensor({0.3f, -7.0f, 0.0f})};
  const FoldedWeight fitted = fit_bias(folded, kInputScale);
  CHECK(at::allclose(fitted.bias, folded.bias, 1e-6, 0));
  CHECK(is_on_grid(fitted, kInputScale));
}

TEST_CASE("fit_bias: a tiny scale grows until int32 holds the bias", "[quant][fold]") {
  const FoldedWeight folded{at::tensor({127, -100, 100, 50}, at::kChar).view({2, 2}), at::tensor({1e-12f, 1e-30f}),
                            at::tensor({5.0f, 0.1f})};
  const FoldedWeight fitted = fit_bias(folded, kInputScale);
  const at::Tensor steps = fitted.bias / (fitted.scale * kInputScale);
  CHECK(steps.abs().max().item<double>() < 2147483647.0);
  CHECK(at::allclose(fitted.bias, folded.bias, 1e-6, 0));
  const at::Tensor weight = dequantize_weight(fitted.codes, fitted.scale);
  CHECK((weight - dequantize_weight(folded.codes, folded.scale)).abs().max().item<float>() <= 2e-7f);
}

TEST_CASE("fit_bias: refuses an input scale that was never set", "[quant][fold]") {
  const FoldedWeight folded{at::zeros({1, 2}, at::kChar), at::ones({1}), at::ones({1})};
  CHECK_THROWS_WITH(fit_bias(folded, at::tensor(0.0f)), ContainsSubstring("input_scale must be > 0"));
  CHECK_THROWS_WITH(fit_bias(folded, at::ones({2})), ContainsSubstring("one number"));
}

TEST_CASE("fold_layer: within half an accumulator step of the unfolded layers", "[quant][fold]") {
  torch::manual_seed(4);
  const at::Tensor weight = at::randn({8, 4, 3, 3});
  weight[3].zero_();
  BatchNormTensors bn = random_batch_norm(8);
  bn.gamma[5] = 0;
  const at::Tensor x = at::randint(-50, 50, {2, 4, 6, 6}).to(at::kFloat) * kInputScale;
  const FoldedWeight folded = fold_layer(weight, {}, bn, kInputScale);
  const QuantizedWeight quantized = quantize_weight(weight);
  const at::Tensor expected = unfolded(x, dequantize_weight(quantized.codes, quantized.scale), at::zeros({8}), bn);
  const at::Tensor half_step = (folded.scale * kInputScale / 2).view({1, -1, 1, 1}) + 1e-5;
  CHECK(((run(x, folded) - expected).abs() <= half_step).all().item<bool>());
  CHECK(is_on_grid(folded, kInputScale));
}

TEST_CASE("fold_layer: without a batch norm the bias may be missing", "[quant][fold]") {
  const FoldedWeight folded = fold_layer(at::ones({2, 3}), {}, std::nullopt, kInputScale);
  CHECK(at::equal(folded.bias, at::zeros({2})));
  CHECK_THROWS_WITH(fold_layer(at::ones({1, 3}), at::tensor({NAN}), std::nullopt, kInputScale),
                    ContainsSubstring("bias holds NaN or infinity"));
}
