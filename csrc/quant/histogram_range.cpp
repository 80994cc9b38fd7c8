// SPDX-License-Identifier: BSD-3-Clause
#include "quant/histogram_range.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quant/fake_quantize.h"
#include "quant/histogram.h"

namespace torchslim::quant {
namespace {

using detail::Range;

// The counts of one row, without the empty bins at their end. Places are counted in bins from the first.
struct HistogramRow {
  const int64_t* counts;
  int64_t bins;
  double first;  // of the bins, in widths from 0
  double width;
  Range range;

  double place(double value) const { return value / width - first; }
  double value(double place) const { return std::clamp((first + place) * width, range.min, range.max); }
};

HistogramRow row_at(const int64_t* counts, int64_t bins, Range range) {
  const auto layout = detail::bin_layout(range, bins);
  int64_t used = bins;
  while (used > 1 && counts[used - 1] == 0) {
    --used;
  }
  return {counts, used, static_cast<double>(layout.first), layout.width(), range};
}

// Calls choose(row) for each row of a state that has seen something, on all threads.
template <typename Choose>
RangeTensors choose_ranges(const char* op, const at::Tensor& histogram, const at::Tensor& min_val,
                           const at::Tensor& max_val, const Choose& choose) {
  detail::check_histogram(op, histogram, min_val, max_val, min_val.sym_sizes(), histogram.device());
  if (histogram.is_meta()) {
    return {at::empty_like(min_val), at::empty_like(max_val)};
  }
  const detail::RangeTable seen(min_val, max_val);
  detail::RangeTable chosen(min_val, max_val);
  const auto counts = histogram.detach().to(at::kCPU).contiguous();
  const int64_t bins = counts.size(-1);
  at::parallel_for(0, seen.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Range range = seen.get(row);
      if (range.min < range.max) {  // one value, or none, needs no choice
        detail::check_seen(op, range);
        chosen.set(row, choose(row_at(counts.const_data_ptr<int64_t>() + row * bins, bins, range)));
      }
    }
  });
  RangeTensors result{min_val.detach().clone(), max_val.detach().clone()};
  chosen.write_to(result.min_val, result.max_val);
  return result;
}

// Sums of n, n·t and n·t² over the values below a place t, and the squared error of quantising that follows from them.
class Moments {
 public:
  explicit Moments(const HistogramRow& row) : row_(row), below_(row.bins + 1) {
    for (int64_t j = 0; j < row.bins; ++j) {
      below_[j + 1] = within(j, static_cast<double>(j + 1));
    }
  }

  double count_of_first(int64_t bins) const { return below_[bins].count; }

  // The error, in squared bins, of rounding every value to the nearest of `levels` values `step` apart from `lowest` on.
  double error(double lowest, double step, int64_t levels) const {
    // Cells much narrower than a bin need no walk: a value is anywhere in its cell, step²/12 from the middle.
    const bool fine = step <= 0.25;
    const double inner_low = lowest + (fine ? -0.5 : 0.5) * step;
    const double highest = lowest + static_cast<double>(levels - 1) * step;
    const double inner_high = highest + (fine ? 0.5 : -0.5) * step;
    Sums before = at(inner_low);
    double error = before.error_at(lowest);
    if (fine) {
      const Sums end = at(inner_high);
      error += (end.count - before.count) * step * step / 12;
      before = end;
    } else {
      for (int64_t level = 1; level + 1 < levels; ++level) {
        const double middle = lowest + static_cast<double>(level) * step;
        const Sums end = at(middle + 0.5 * step);
        error += (end - before).error_at(middle);
        before = end;
      }
    }
    return error + (below_.back() - before).error_at(highest);
  }

 private:
  struct Sums {
    double count = 0, first = 0, second = 0;

    Sums operator-(const Sums& o) const { return {count - o.count, first - o.first, second - o.second}; }
    double error_at(double value) const { return second - value * (2 * first - value * count); }
  };

  // The sums below `place`, which lies in bin j: values are spread evenly over their bin.
  Sums within(int64_t j, double place) const {
    const double begin = static_cast<double>(j);
    const double count = static_cast<double>(row_.counts[j]) * (place - begin);
    return {below_[j].count + count, below_[j].first + count * (place + begin) / 2,
            below_[j].second + count * (place * place + place * begin + begin * begin) / 3};
  }

  Sums at(double place) const {
    if (!(place > 0)) {
      return {};
    }
    return place >= static_cast<double>(row_.bins) ? below_.back() : within(static_cast<int64_t>(place), place);
  }

  const HistogramRow& row_;
  std::vector<Sums> below_;
};

// ---- L2 ----

// caffe2's NormMinimization::NonlinearQuantizationParamsSearch, as torch.ao's HistogramObserver runs it.
Range l2_of_row(const HistogramRow& row, int64_t levels) {
  constexpr double kStep = 1e-5;
  const Moments moments(row);
  const double total = moments.count_of_first(row.bins);
  const auto error = [&](int64_t start, int64_t end) {
    const double step = static_cast<double>(end - start + 1) / static_cast<double>(levels);
    return moments.error(static_cast<double>(start) + step / 2, step, levels);
  };
  const auto up_to = [&](int64_t bin) { return moments.count_of_first(bin + 1); };
  double alpha = 0, beta = 1, least = INFINITY;
  int64_t start = 0, end = row.bins - 1;
  while (alpha < beta) {
    int64_t left = start, right = end;
    while (left < end && up_to(left) < (alpha + kStep) * total) {
      ++left;
    }
    while (right > start && up_to(right) > (beta - kStep) * total) {
      --right;
    }
    const bool from_left = left - start > end - right;
    (from_left ? alpha : beta) += from_left ? kStep : -kStep;
    const int64_t next_start = from_left ? left : start;
    const int64_t next_end = from_left ? end : right;
    if (next_start == start && next_end == end) {
      continue;
    }
    const double next = error(next_start, next_end);
    if (next > least) {
      break;
    }
    least = next;
    start = next_start;
    end = next_end;
  }
  return {row.value(static_cast<double>(start)), row.value(static_cast<double>(end + 1))};
}

// ---- percentile ----

// The smallest place below which there are `count` values.
double place_of(const HistogramRow& row, double count) {
  double below = 0;
  for (int64_t j = 0; j < row.bins; ++j) {
    const double here = static_cast<double>(row.counts[j]);
    if (below + here >= count) {
      return static_cast<double>(j) + (here > 0 ? (count - below) / here : 0);
    }
    below += here;
  }
  return static_cast<double>(row.bins);
}

Range percentile_of_row(const HistogramRow& row, double percentile) {
  double total = 0;
  for (int64_t j = 0; j < row.bins; ++j) {
    total += static_cast<double>(row.counts[j]);
  }
  const double cut = total * (1 - percentile / 100);
  return {row.value(place_of(row, cut)), row.value(place_of(row, total - cut))};
}

// ---- MSE ----

struct Codes {
  int64_t quant_min;
  int64_t quant_max;
  bool symmetric;

  int64_t count() const { return quant_max - quant_min + 1; }
};

// What remains of both limits of a range, in parts of 256.
class MseSearch {
 public:
  MseSearch(const HistogramRow& row, const Codes& codes)
      : row_(row),
        codes_(codes),
        moments_(row),
        low_(std::min(row.range.min, 0.0)),
        high_(std::max(row.range.max, 0.0)) {
    if (codes.symmetric) {
      high_ = std::max(-low_, high_);
      low_ = -high_;
    }
  }

  Range best() {
    for (int64_t step = 16; step >= 1; step /= 4) {
      // Around the best, up to the neighbours of the round before; in the first round, everywhere.
      const int64_t reach = step == 16 ? kParts : 3 * step;  // a multiple of step
      const int64_t low_part = best_low_, high_part = best_high_;
      for (int64_t low = low_part + reach; low >= low_part - reach; low -= step) {
        if (codes_.symmetric) {
          try_parts(low, low);
          continue;
        }
        for (int64_t high = high_part + reach; high >= high_part - reach; high -= step) {
          try_parts(low, high);
        }
      }
    }
    return range_of(best_low_, best_high_);
  }

 private:
  static constexpr int64_t kParts = 256;

  Range range_of(int64_t low_part, int64_t high_part) const {
    return {low_ * static_cast<double>(low_part) / kParts, high_ * static_cast<double>(high_part) / kParts};
  }

  void try_parts(int64_t low_part, int64_t high_part) {
    const bool in_parts = std::min(low_part, high_part) > 0 && std::max(low_part, high_part) <= kParts;
    const bool repeated = (low_ == 0 && low_part != kParts) || (high_ == 0 && high_part != kParts);
    if (!in_parts || repeated) {
      return;
    }
    const Range range = range_of(low_part, high_part);
    const auto grid = detail::grid_of(range.min, range.max, codes_.quant_min, codes_.quant_max, codes_.symmetric);
    if (grid.scale < std::numeric_limits<float>::min()) {
      return;
    }
    const double scale = grid.scale;
    const double lowest = static_cast<double>(codes_.quant_min - grid.zero_point) * scale;
    const double error = moments_.error(row_.place(lowest), scale / row_.width, codes_.count());
    if (error < least_) {
      least_ = error;
      best_low_ = low_part;
      best_high_ = high_part;
    }
  }

  const HistogramRow& row_;
  Codes codes_;
  Moments moments_;
  double low_, high_;
  double least_ = INFINITY;
  int64_t best_low_ = kParts, best_high_ = kParts;
};

// ---- entropy ----

// The histogram of |x|, which begins at 0: bins lie at whole multiples of their width, so negative ones fold onto
// positive ones.
std::vector<double> folded(const HistogramRow& row) {
  const auto first = static_cast<int64_t>(row.first);
  const int64_t last = first + row.bins - 1;
  const auto fold = [](int64_t bin) { return bin < 0 ? -bin - 1 : bin; };
  std::vector<double> counts(std::max(fold(first), fold(last)) + 1);
  for (int64_t j = 0; j < row.bins; ++j) {
    counts[fold(first + j)] += static_cast<double>(row.counts[j]);
  }
  return counts;
}

double n_log_n(double n) { return n > 0 ? n * std::log(n) : 0; }

// Sums over the first bins of a histogram of |x|.
struct Sum {
  double count = 0;    // of values
  double log = 0;      // of n·log n
  int64_t filled = 0;  // of bins with values
};

class EntropySearch {
 public:
  // What Q counts as where only cut off values fall: dropping few of them costs little, but never nothing.
  static constexpr double kAlmostNone = 1e-4;

  EntropySearch(std::vector<double> counts, int64_t steps)
      : counts_(std::move(counts)), steps_(steps), below_(counts_.size() + 1) {
    for (size_t j = 0; j < counts_.size(); ++j) {
      const Sum& sum = below_[j];
      below_[j + 1] = {sum.count + counts_[j], sum.log + n_log_n(counts_[j]), sum.filled + (counts_[j] > 0)};
    }
  }

  // The number of bins to keep.
  int64_t best() const {
    const auto bins = static_cast<int64_t>(counts_.size());
    int64_t best = bins;
    double least = INFINITY;
    for (int64_t kept = std::min(steps_, bins); kept <= bins; ++kept) {
      const double loss = divergence(kept);
      if (loss < least || (loss == least && kept == bins)) {
        least = loss;
        best = kept;
      }
    }
    return best;
  }

 private:
  // KL(P ‖ Q) for the first `kept` bins. With counts p and q, and equal totals N and M:
  // KL = (Σ p·log p − Σ p·log q) / N − log N + log M.
  double divergence(int64_t kept) const {
    const double total = below_.back().count;
    if (below_[kept].count == 0) {
      return INFINITY;
    }
    const double beyond = total - below_[kept].count;
    const double last = counts_[kept - 1];
    double cross = 0;
    for (int64_t step = 0; step < steps_; ++step) {
      const Sum& begin = below_[step * kept / steps_];
      const Sum& end = below_[(step + 1) * kept / steps_];
      double p = end.count - begin.count;
      int64_t filled = end.filled - begin.filled;
      const double q = p;
      if (step == steps_ - 1) {
        p += beyond;
        filled += last == 0 && beyond > 0;
      }
      if (p > 0) {
        cross += p * std::log(q > 0 ? q / static_cast<double>(filled) : kAlmostNone);
      }
    }
    const double own = below_[kept].log - n_log_n(last) + n_log_n(last + beyond);
    return (own - cross) / total - std::log(total) + std::log(below_[kept].count);
  }

  std::vector<double> counts_;
  int64_t steps_;
  std::vector<Sum> below_;
};

Range entropy_of_row(const HistogramRow& row, const Codes& codes) {
  const bool one_sign = row.range.min >= 0 || row.range.max <= 0;
  const int64_t steps = one_sign && !codes.symmetric ? codes.count() : (codes.count() + 1) / 2;
  auto counts = folded(row);
  const auto bins = static_cast<int64_t>(counts.size());
  const int64_t kept = bins <= steps ? bins : EntropySearch(std::move(counts), steps).best();
  const double limit = static_cast<double>(kept) * row.width;
  return {std::clamp(-limit, row.range.min, row.range.max), std::clamp(limit, row.range.min, row.range.max)};
}

}  // namespace

RangeTensors detail::l2_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                              int64_t levels) {
  constexpr const char* kOp = "torchslim::l2_range";
  TORCH_CHECK_VALUE(levels >= 2, kOp, ": levels must be >= 2, got ", levels);
  return choose_ranges(kOp, histogram, min_val, max_val,
                       [&](const HistogramRow& row) { return l2_of_row(row, levels); });
}

RangeTensors detail::percentile_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                                      double percentile) {
  constexpr const char* kOp = "torchslim::percentile_range";
  detail::check_percentile(kOp, percentile);
  return choose_ranges(kOp, histogram, min_val, max_val,
                       [&](const HistogramRow& row) { return percentile_of_row(row, percentile); });
}

RangeTensors detail::mse_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                               int64_t quant_min, int64_t quant_max, bool symmetric) {
  constexpr const char* kOp = "torchslim::mse_range";
  detail::check_grid(kOp, quant_min, quant_max);
  const Codes codes{quant_min, quant_max, symmetric};
  return choose_ranges(kOp, histogram, min_val, max_val,
                       [&](const HistogramRow& row) { return MseSearch(row, codes).best(); });
}

RangeTensors detail::entropy_range(const at::Tensor& histogram, const at::Tensor& min_val, const at::Tensor& max_val,
                                   int64_t quant_min, int64_t quant_max, bool symmetric) {
  constexpr const char* kOp = "torchslim::entropy_range";
  detail::check_grid(kOp, quant_min, quant_max);
  const Codes codes{quant_min, quant_max, symmetric};
  return choose_ranges(kOp, histogram, min_val, max_val,
                       [&](const HistogramRow& row) { return entropy_of_row(row, codes); });
}

}  // namespace torchslim::quant
