// SPDX-License-Identifier: BSD-3-Clause
#include "quant/histogram.h"

#include <ATen/core/Formatting.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "quant/fake_quantize.h"

namespace torchslim::quant::detail {
namespace {

constexpr int kSmallestExponent = -126;  // a bin's width and its inverse are normal in float32
constexpr int kFloatBits = 23;           // finer bins than float32 has values would stay empty
constexpr int64_t kMostBins = int64_t{1} << 20;

int exponent_of(double positive) { return positive > 0 ? std::ilogb(positive) : kSmallestExponent; }

int64_t bin_at(double value, int exponent) { return static_cast<int64_t>(std::floor(std::ldexp(value, -exponent))); }

}  // namespace

double BinLayout::width() const { return std::ldexp(1.0, exponent); }

BinLayout bin_layout(Range range, int64_t bins) {
  const double largest = std::max(std::fabs(range.min), std::fabs(range.max));
  int exponent = std::max({kSmallestExponent, exponent_of(largest) - kFloatBits,
                           exponent_of((range.max - range.min) / static_cast<double>(bins))});
  while (bin_at(range.max, exponent) - bin_at(range.min, exponent) >= bins) {
    ++exponent;
  }
  return {exponent, bin_at(range.min, exponent)};
}

int64_t BinLayout::bin_of(double value) const { return bin_at(value, exponent) - first; }

void add_counts(const char* op, const int64_t* from, Range from_range, int64_t* to, Range to_range, int64_t bins) {
  const auto before = bin_layout(from_range, bins);
  const auto after = bin_layout(to_range, bins);
  const int64_t last = before.bin_of(from_range.max);
  const int shift = std::min(after.exponent - before.exponent, 62);
  for (int64_t j = 0; j < bins; ++j) {
    TORCH_CHECK_VALUE(from[j] == 0 || (from[j] > 0 && j <= last), op,
                      ": the histogram does not fit min_val and max_val: bin ", j, " holds ", from[j],
                      "; reset the observer");
    if (from[j] > 0) {
      to[((before.first + j) >> shift) - after.first] += from[j];
    }
  }
}

void check_bins(const char* op, const c10::SymInt& bins) {
  TORCH_CHECK_VALUE(bins >= 2 && bins <= kMostBins, op, ": bins must be in [2, ", kMostBins, "], got ", bins);
}

void check_percentile(const char* op, double percentile) {
  TORCH_CHECK_VALUE(percentile > 50 && percentile <= 100, op, ": percentile must be in (50, 100], got ", percentile);
}

void check_seen(const char* op, Range range) {
  TORCH_CHECK_VALUE(std::isfinite(range.min) && std::isfinite(range.max), op,
                    ": min_val and max_val must be finite where something was seen, got ", range.min, " and ",
                    range.max, "; reset the observer");
}

void check_histogram(const char* op, const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                     c10::SymIntArrayRef shape, c10::Device device) {
  check_state(op, "min_val", min_val, at::kFloat, shape, device);
  check_state(op, "max_val", max_val, at::kFloat, min_val.sym_sizes(), device);
  TORCH_CHECK_TYPE(histogram.scalar_type() == at::kLong, op, ": histogram must be int64, got ",
                   histogram.scalar_type());
  const auto sizes = histogram.sym_sizes();
  const bool fits = !sizes.empty() && sizes.slice(0, sizes.size() - 1) == min_val.sym_sizes();
  TORCH_CHECK_VALUE(fits, op, ": histogram must have min_val's shape ", min_val.sym_sizes(),
                    " and one more dimension, the bins, got shape ", sizes);
  check_device(op, "histogram", histogram, device);
  check_bins(op, sizes.back());
}

at::Tensor in_wider_bins(const char* op, const at::Tensor& histogram, const RangeTable& from, const RangeTable& to) {
  const auto source = histogram.detach().to(at::kCPU).contiguous();
  auto result = at::zeros(source.sizes(), source.options());
  const int64_t bins = source.size(-1);
  for (int64_t row = 0; row < from.size(); ++row) {
    const auto before = from.get(row);
    if (before.min <= before.max) {
      check_seen(op, before);
      add_counts(op, source.const_data_ptr<int64_t>() + row * bins, before,
                 result.mutable_data_ptr<int64_t>() + row * bins, to.get(row), bins);
    }
  }
  return result;
}

}  // namespace torchslim::quant::detail
