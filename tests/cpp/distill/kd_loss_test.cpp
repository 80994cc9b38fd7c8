// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/distill/kd_loss.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <vector>

#include "core/cpu_dispatch.h"
#include "cpp/catch.hpp"

using torchslim::core::CpuCapability;
using torchslim::distill::kd_loss;
using torchslim::distill::KDLoss;
using torchslim::distill::KDLossOptions;

namespace {

/// softmax(x / temperature) of one row, in float64.
std::vector<double> softmax(const at::Tensor& x, double temperature) {
  std::vector<double> result(x.numel());
  const double max = x.max().item<double>();
  double sum = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    sum += result[i] = std::exp((x[i].item<double>() - max) / temperature);
  }
  for (double& value : result) {
    value /= sum;
  }
  return result;
}

struct Reference {
  double loss = 0;
  at::Tensor gradient;
};

/// The mean over rows of T² · Σ p (log p − log q), written out.
Reference reference(const at::Tensor& student, const at::Tensor& teacher, double temperature) {
  Reference result{0, at::zeros(student.sizes(), at::kDouble)};
  const auto rows = static_cast<double>(student.size(0));
  for (int64_t row = 0; row < student.size(0); ++row) {
    const auto q = softmax(student[row].to(at::kDouble), temperature);
    const auto p = softmax(teacher[row].to(at::kDouble), temperature);
    for (size_t i = 0; i < p.size(); ++i) {
      result.loss += temperature * temperature * p[i] * std::log(p[i] / q[i]) / rows;
      result.gradient[row][static_cast<int64_t>(i)] = temperature * (q[i] - p[i]) / rows;
    }
  }
  return result;
}

std::pair<at::Tensor, at::Tensor> logits(at::IntArrayRef shape, at::ScalarType type) {
  torch::manual_seed(0);
  return {(at::randn(shape, at::kDouble) * 3).to(type).requires_grad_(), (at::randn(shape, at::kDouble) * 3).to(type)};
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

}  // namespace

TEMPLATE_TEST_CASE("kd_loss: loss and gradient equal the written-out sums", "[distill][kd_loss]", float, double,
                   c10::BFloat16, c10::Half) {
  const at::ScalarType type = c10::CppTypeToScalarType<TestType>::value;
  const int64_t classes = GENERATE(1, 7, 8, 33, 100);
  const auto [student, teacher] = logits({3, classes}, type);
  const auto expected = reference(student.detach(), teacher, 2.0);

  const auto loss = kd_loss(student, teacher, 2.0);
  loss.backward();

  CHECK(loss.scalar_type() == (type == at::kDouble ? at::kDouble : at::kFloat));
  CHECK(std::abs(loss.item<double>() - expected.loss) <= 1e-6 * (1 + expected.loss));
  CHECK(student.grad().scalar_type() == type);
  const double digits = type == at::kBFloat16 ? 0x1p-8 : type == at::kHalf ? 0x1p-10 : 1e-6;
  CHECK(at::allclose(student.grad().to(at::kDouble), expected.gradient, digits, digits * 0.5));
}

TEST_CASE("kd_loss: reductions sum, divide and keep rows", "[distill][kd_loss]") {
  const auto [student, teacher] = logits({2, 3, 10}, at::kDouble);
  const auto rows = kd_loss(student, teacher, 2.0, torch::kNone);
  REQUIRE(rows.sizes() == at::IntArrayRef({2, 3}));
  CHECK(at::allclose(kd_loss(student, teacher, 2.0, torch::kSum), rows.sum()));
  CHECK(at::allclose(kd_loss(student, teacher, 2.0, torch::kBatchMean), rows.mean()));
  CHECK(at::allclose(kd_loss(student, teacher, 2.0, torch::kMean), rows.mean() / 10));

  const auto mask = at::tensor({1, 0, 1, 1, 0, 0}).to(at::kBool).view({2, 3});
  CHECK(at::allclose(kd_loss(student, teacher, 2.0, torch::kBatchMean, mask), rows.masked_select(mask).mean()));
  CHECK(at::equal(kd_loss(student, teacher, 2.0, torch::kNone, mask), rows * mask));
  CHECK(at::allclose(kd_loss(student, teacher, 2.0, torch::kSum, {}, 0.5), rows.sum() / 2));
}

TEST_CASE("kd_loss: nothing kept is 0 and backpropagates zeros", "[distill][kd_loss]") {
  const auto [student, teacher] = logits({3, 5}, at::kFloat);
  const auto loss = kd_loss(student, teacher, 4.0, torch::kBatchMean, at::zeros({3}, at::kBool));
  loss.backward();
  CHECK(loss.item<float>() == 0.0f);
  CHECK(at::equal(student.grad(), at::zeros({3, 5})));
}

TEST_CASE("kd_loss: equal logits give exactly 0", "[distill][kd_loss]") {
  const auto student = logits({4, 3000}, at::kFloat).first;
  const auto loss = kd_loss(student, student.detach().clone());
  loss.backward();
  CHECK(loss.item<float>() == 0.0f);
  CHECK(student.grad().eq(0).all().item<bool>());
}

TEST_CASE("kd_loss: probability 0 of the teacher adds nothing, of the student alone is infinite",
          "[distill][kd_loss]") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const auto padded = at::tensor({1.0f, 0.0f, -kInf}).view({1, 3});
  CHECK(kd_loss(padded, padded).item<float>() == 0.0f);
  CHECK(kd_loss(padded, at::zeros({1, 3})).item<float>() == kInf);
  CHECK(kd_loss(at::zeros({1, 3}), padded).isfinite().item<bool>());
  CHECK(kd_loss(at::full({1, 3}, NAN), padded).isnan().item<bool>());
}

TEST_CASE("kd_loss: threads and instruction sets do not change a bit", "[distill][kd_loss]") {
  const int64_t classes = GENERATE(10, 1024, 1025, 2500);
  const auto type = GENERATE(at::kFloat, at::kBFloat16, at::kHalf, at::kDouble);
  const auto [student, teacher] = logits({50, classes}, type);
  const int threads = at::get_num_threads();
  std::vector<std::pair<at::Tensor, at::Tensor>> results;
  for (const auto capability : {CpuCapability::kPortable, torchslim::core::cpu_capability()}) {
    torchslim::core::force_cpu_capability(capability);
    for (const int count : {1, 2}) {
      at::set_num_threads(count);
      const auto loss = kd_loss(student, teacher, 2.0);
      results.emplace_back(loss.detach(), torch::autograd::grad({loss}, {student})[0]);
    }
  }
  torchslim::core::force_cpu_capability(std::nullopt);
  at::set_num_threads(threads);
  for (const auto& [loss, gradient] : results) {
    CHECK(same_bits(loss, results[0].first));
    CHECK(same_bits(gradient, results[0].second));
  }
}

TEST_CASE("kd_loss: the gradient can be taken once", "[distill][kd_loss]") {
  const auto [student, teacher] = logits({2, 5}, at::kFloat);
  const auto gradient = torch::autograd::grad({kd_loss(student, teacher)}, {student}, {}, {}, /*create_graph=*/true)[0];
  CHECK_THROWS_WITH(gradient.sum().backward(), ContainsSubstring("torchslim::kd_loss: the gradient cannot be"));
}

TEST_CASE("kd_loss: the saved gradient is multiplied once, even if the graph is kept", "[distill][kd_loss]") {
  const auto [student, teacher] = logits({2, 5}, at::kDouble);
  const auto plain = torch::autograd::grad({kd_loss(student, teacher)}, {student})[0];
  const auto loss = kd_loss(student, teacher) * 3;
  const auto kept = torch::autograd::grad({loss}, {student}, {}, /*retain_graph=*/true)[0];
  const auto last = torch::autograd::grad({loss}, {student})[0];
  CHECK(at::allclose(kept, plain * 3));
  CHECK(at::equal(kept, last));
}

TEST_CASE("kd_loss: refuses by name what it cannot do", "[distill][kd_loss]") {
  const auto x = at::zeros({3, 5});
  CHECK_THROWS_WITH(kd_loss(x, at::zeros({3, 4})),
                    ContainsSubstring("must have the same shape, got [3, 5] and [3, 4]"));
  CHECK_THROWS_AS(kd_loss(x, at::zeros({3, 4})), c10::ValueError);
  CHECK_THROWS_WITH(kd_loss(x, x, -1.0), ContainsSubstring("temperature must be > 0 and finite, got -1"));
  CHECK_THROWS_AS(kd_loss(x, x.to(at::kInt)), c10::TypeError);
  CHECK_THROWS_WITH(kd_loss(x, x, 1.0, torch::kSum, at::ones({2}, at::kBool)), ContainsSubstring("[3], got [2]"));
}

TEST_CASE("KDLoss: is the weighted sum of cross-entropy and distillation", "[distill][KDLoss]") {
  const auto [student, teacher] = logits({4, 6}, at::kDouble);
  const auto target = at::tensor({5, -100, 0, 2}, at::kLong);
  const auto kept = target.ne(-100);
  KDLoss loss(KDLossOptions().temperature(2).ce_weight(0.3).kd_weight(0.7).label_smoothing(0.1));
  const auto cross_entropy = torch::nn::functional::cross_entropy(
      student, target, torch::nn::functional::CrossEntropyFuncOptions().label_smoothing(0.1));
  const auto expected =
      0.3 * cross_entropy + 0.7 * kd_loss(student.index({kept}), teacher.index({kept}), 2.0, torch::kBatchMean);
  CHECK(at::allclose(loss(student, teacher, target), expected));
  CHECK(at::allclose(torch::autograd::grad({loss(student, teacher, target)}, {student})[0],
                     torch::autograd::grad({expected}, {student})[0]));

  const auto clone = std::dynamic_pointer_cast<torchslim::distill::KDLossImpl>(loss->clone());
  CHECK(at::equal(clone->forward(student, teacher, target), loss(student, teacher, target)));
  std::ostringstream printed;
  printed << *loss;
  CHECK(printed.str() ==
        "torchslim::distill::KDLoss(temperature=2, ce_weight=0.3, kd_weight=0.7, ignore_index=-100, "
        "label_smoothing=0.1, reduction=batchmean)");
}

TEST_CASE("KDLoss: all labels ignored is 0 and backpropagates zeros", "[distill][KDLoss]") {
  const auto [student, teacher] = logits({2, 5}, at::kFloat);
  KDLoss loss;
  const auto value = loss(student, teacher, at::full({2}, -100, at::kLong));
  value.backward();
  CHECK(value.item<float>() == 0.0f);
  CHECK(at::equal(student.grad(), at::zeros({2, 5})));
}

TEST_CASE("KDLoss: refuses options and labels out of range", "[distill][KDLoss]") {
  CHECK_THROWS_AS(KDLoss(KDLossOptions().temperature(0)), c10::ValueError);
  CHECK_THROWS_WITH(KDLoss(KDLossOptions().ce_weight(-1)),
                    ContainsSubstring("ce_weight must be >= 0 and finite, got -1"));
  CHECK_THROWS_AS(KDLoss(KDLossOptions().label_smoothing(1)), c10::ValueError);
  CHECK_THROWS_WITH(KDLoss(KDLossOptions().reduction(torch::kMean)), ContainsSubstring("got `mean`"));
  KDLoss loss;
  const auto x = at::zeros({1, 5});
  CHECK_THROWS_WITH(loss(x, x, at::Tensor()), ContainsSubstring("target is an undefined tensor"));
  CHECK_THROWS_WITH(loss(x, x, at::tensor({5}, at::kLong)),
                    ContainsSubstring("must be in [0, 5) or ignore_index, got 5"));
}
