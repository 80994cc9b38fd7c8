// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torchslim/quant/levels.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr const char* kKmeans = "torchslim::kmeans_levels";

// The distinct values of a tensor, ascending, with running sums: what belongs to a centre is a range of them.
struct Distribution {
  std::vector<double> value;
  std::vector<double> count, sum;  // of all values before the i-th; one more than there are values

  explicit Distribution(const at::Tensor& sorted) : count{0}, sum{0} {
    const float* from = sorted.const_data_ptr<float>();
    for (int64_t i = 0; i < sorted.numel(); ++i) {
      if (value.empty() || value.back() != from[i]) {
        value.push_back(from[i]);
        count.push_back(count.back());
        sum.push_back(sum.back());
      }
      count.back() += 1;
      sum.back() += from[i];
    }
  }

  int64_t size() const { return static_cast<int64_t>(value.size()); }
};

// Starts with the quantiles (i + 1/2) / k, moved apart where values repeat.
std::vector<double> first_centres(const Distribution& data, int64_t k) {
  std::vector<double> centres;
  int64_t next = 0;
  for (int64_t i = 0; i < k; ++i) {
    const double wanted = (static_cast<double>(i) + 0.5) / static_cast<double>(k) * data.count.back();
    const auto above = std::upper_bound(data.count.begin(), data.count.end(), wanted);
    const int64_t place = std::min<int64_t>(above - data.count.begin() - 1, data.size() - (k - i));
    next = std::max(next, place);
    centres.push_back(data.value[next++]);
  }
  return centres;
}

// Moves each centre to the mean of the values nearest to it. Returns whether one moved.
bool lloyd_step(const Distribution& data, std::vector<double>& centres) {
  bool moved = false;
  int64_t begin = 0;
  const auto k = static_cast<int64_t>(centres.size());
  for (int64_t i = 0; i < k; ++i) {
    int64_t end = data.size();
    if (i + 1 < k) {
      const double middle = (centres[i] + centres[i + 1]) / 2;
      end = std::lower_bound(data.value.begin() + begin, data.value.end(), middle) - data.value.begin();
    }
    if (end > begin) {  // a centre that nothing is nearest to stays
      const double mean = (data.sum[end] - data.sum[begin]) / (data.count[end] - data.count[begin]);
      moved = moved || mean != centres[i];
      centres[i] = mean;
    }
    begin = end;
  }
  return moved;
}

}  // namespace

at::Tensor kmeans_levels(const at::Tensor& x, int64_t k, int64_t iterations) {
  detail::check_input(kKmeans, x);
  TORCH_CHECK_VALUE(x.numel() > 0, kKmeans, ": x must not be empty, got shape ", x.sizes());
  TORCH_CHECK_VALUE(k >= 1 && k <= 65536, kKmeans, ": k must be in [1, 65536], got ", k);
  TORCH_CHECK_VALUE(iterations >= 0, kKmeans, ": iterations must be at least 0, got ", iterations);
  const auto numbers = x.detach().to(at::kCPU, at::kFloat).flatten();
  TORCH_CHECK_VALUE(numbers.isfinite().all().item<bool>(), kKmeans, ": x must be finite, got NaN or infinity");
  const Distribution data(std::get<0>(numbers.sort()));
  auto centres = first_centres(data, std::min(k, data.size()));
  for (int64_t i = 0; i < iterations && lloyd_step(data, centres); ++i) {
  }
  std::vector<float> levels(centres.begin(), centres.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());  // means that float32 cannot tell apart
  auto result = at::empty({static_cast<int64_t>(levels.size())}, at::kFloat);
  std::copy(levels.begin(), levels.end(), result.mutable_data_ptr<float>());
  return result.to(x.device());
}

}  // namespace torchslim::quant
