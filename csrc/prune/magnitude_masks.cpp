// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <torchslim/prune/magnitude_masks.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "prune/magnitude_kernel.h"

// Selection by radix: a histogram of the top digit of all keys says in which digit the threshold
// lies, a histogram of the next digit of those keys says it more closely, until the key is known:
// two streaming reads for float32, one for the 16-bit types, four for float64. Then one pass writes
// the masks. Threads count chunks into histograms of their own, which are summed as integers, so
// the number of threads cannot show in the result.
namespace torchslim::prune {
namespace {

constexpr int64_t kChunk = int64_t{1} << 16;
constexpr int64_t kFewValues = int64_t{1} << 15;

// Values in memory order and their part of the mask.
template <typename Bits>
struct Span {
  const Bits* x;
  bool* keep;
  int64_t n;
};

// The key that divides kept from pruned: all below `key` is pruned, and `quota` of the `ties` that
// equal it.
template <typename Bits>
struct Threshold {
  Bits key;
  int64_t quota;
  int64_t ties;
};

template <typename Bits>
std::vector<Span<Bits>> chunks_of(const std::vector<Span<Bits>>& spans) {
  std::vector<Span<Bits>> chunks;
  for (const auto& span : spans) {
    for (int64_t begin = 0; begin < span.n; begin += kChunk) {
      chunks.push_back({span.x + begin, span.keep + begin, std::min(kChunk, span.n - begin)});
    }
  }
  return chunks;
}

template <typename Bits, typename Function>
void for_each_chunk(const std::vector<Span<Bits>>& chunks, const Function& function) {
  int64_t total = 0;
  for (const auto& chunk : chunks) {
    total += chunk.n;
  }
  const auto count = static_cast<int64_t>(chunks.size());
  const int64_t grain = total <= 2 * kChunk ? std::max<int64_t>(count, 1) : 1;
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      function(i, chunks[i]);
    }
  });
}

// One histogram a thread; `sum` leaves them empty for the next digit.
class Histograms {
 public:
  // Before the first parallel region of a count, which then only reads.
  void prepare() { bins_.resize(threads_ * kSize); }

  uint32_t* of_this_thread() { return bins_.data() + at::get_thread_num() * kSize; }

  // Returns the first `size` counts, summed over the threads and over copies that lie `size` apart.
  std::vector<int64_t> sum(int64_t size, int64_t copies) {
    std::vector<int64_t> total(size);
    for (int64_t thread = 0; thread < threads_; ++thread) {
      for (int64_t copy = 0; copy < copies; ++copy) {
        const uint32_t* bins = bins_.data() + thread * kSize + copy * size;
        for (int64_t i = 0; i < size; ++i) {
          total[i] += bins[i];
        }
      }
    }
    std::fill(bins_.begin(), bins_.end(), 0U);
    return total;
  }

 private:
  static constexpr int64_t kSize = int64_t{detail::kHistogramCopies} << detail::kTopDigitBits;
  static_assert(kSize >= int64_t{1} << detail::kDigitBits);
  int64_t threads_ = at::get_num_threads();
  std::vector<uint32_t> bins_;
};

template <typename Bits>
std::vector<int64_t> count_top(const std::vector<Span<Bits>>& chunks, Histograms& histograms) {
  histograms.prepare();
  for_each_chunk(chunks, [&](int64_t, const Span<Bits>& chunk) {
    TORCHSLIM_CALL_KERNEL(count_top_digits, chunk.x, chunk.n, histograms.of_this_thread());
  });
  return histograms.sum(int64_t{1} << detail::kTopDigitBits, detail::kHistogramCopies);
}

template <typename Bits>
std::vector<int64_t> count_next(const std::vector<Span<Bits>>& chunks, Bits prefix, int shift, Histograms& histograms) {
  for_each_chunk(chunks, [&](int64_t, const Span<Bits>& chunk) {
    TORCHSLIM_CALL_KERNEL(count_next_digits, chunk.x, chunk.n, prefix, shift, histograms.of_this_thread());
  });
  return histograms.sum(int64_t{1} << detail::kDigitBits, 1);
}

// Returns the digit that holds the `rank`-th smallest (from 1) and makes `rank` the rank within it.
int64_t find_digit(const std::vector<int64_t>& counts, int64_t& rank) {
  int64_t digit = 0;
  while (rank > counts[digit]) {
    rank -= counts[digit];
    ++digit;
  }
  return digit;
}

// Returns the key of the `rank`-th smallest magnitude, 1 ≤ rank ≤ number of values; `top` counts
// the top digits.
template <typename Bits>
Threshold<Bits> select(const std::vector<Span<Bits>>& chunks, const std::vector<int64_t>& top, int64_t rank,
                       Histograms& histograms) {
  int64_t digit = find_digit(top, rank);
  int64_t ties = top[digit];
  auto key = static_cast<Bits>(digit);
  int shift = static_cast<int>(8 * sizeof(Bits)) - 1 - detail::kTopDigitBits;
  while (shift > 0) {
    shift -= detail::kDigitBits;
    const auto counts = count_next(chunks, key, shift, histograms);
    digit = find_digit(counts, rank);
    ties = counts[digit];
    key = static_cast<Bits>((static_cast<uint64_t>(key) << detail::kDigitBits) | static_cast<uint64_t>(digit));
  }
  return {key, rank, ties};
}

// The same for few values, where empty histograms would cost more than the values.
template <typename Bits>
Threshold<Bits> select_by_partition(const std::vector<Span<Bits>>& chunks, int64_t rank) {
  std::vector<Bits> keys;
  for (const auto& chunk : chunks) {
    std::transform(chunk.x, chunk.x + chunk.n, std::back_inserter(keys),
                   [](Bits bits) { return detail::key_of(bits); });
  }
  const auto nth = keys.begin() + (rank - 1);
  std::nth_element(keys.begin(), nth, keys.end());
  const Bits key = *nth;
  const auto below = std::count_if(keys.begin(), nth, [key](Bits other) { return other < key; });
  return {key, rank - below, std::count(keys.begin(), keys.end(), key)};
}

// What the kernels need beside the tensor a user passed.
struct Weight {
  at::Tensor values;  // on the CPU, without gaps
  at::Tensor mask;    // same strides
};

template <typename Bits>
Span<Bits> span_of(const Weight& weight) {
  return {static_cast<const Bits*>(weight.values.const_data_ptr()), weight.mask.mutable_data_ptr<bool>(),
          weight.values.numel()};
}

template <typename Bits>
void keep_all_from(const Span<Bits>& span, Bits lowest) {
  for_each_chunk(chunks_of<Bits>({span}), [&](int64_t, const Span<Bits>& chunk) {
    TORCHSLIM_CALL_KERNEL(keep_from, chunk.x, chunk.n, lowest, chunk.keep);
  });
}

template <typename Bits>
int64_t count_ties(const Span<Bits>& span, Bits key) {
  const auto chunks = chunks_of<Bits>({span});
  std::vector<int64_t> counts(chunks.size());
  for_each_chunk(chunks, [&](int64_t i, const Span<Bits>& chunk) {
    counts[i] = TORCHSLIM_CALL_KERNEL(count_equal, chunk.x, chunk.n, key);
  });
  int64_t total = 0;
  for (const int64_t count : counts) {
    total += count;
  }
  return total;
}

// The one tensor in which the quota ends: the only place where the order of its values matters.
template <typename Bits>
void keep_in_flat_order(const Weight& weight, Bits key, int64_t quota) {
  const auto values = weight.values.contiguous();
  auto mask = weight.mask.is_contiguous() ? weight.mask : at::empty(values.sizes(), weight.mask.options());
  const auto span = span_of<Bits>({values, mask});
  TORCHSLIM_CALL_KERNEL(keep_after_quota, span.x, span.n, key, quota, span.keep);
  if (!mask.is_same(weight.mask)) {
    weight.mask.copy_(mask);
  }
}

template <typename Bits>
void write_masks(const std::vector<Weight>& weights, const std::vector<Span<Bits>>& chunks,
                 const Threshold<Bits>& threshold) {
  const auto above = static_cast<Bits>(threshold.key + 1);
  if (threshold.quota == threshold.ties) {
    for_each_chunk(chunks, [&](int64_t, const Span<Bits>& chunk) {
      TORCHSLIM_CALL_KERNEL(keep_from, chunk.x, chunk.n, above, chunk.keep);
    });
    return;
  }
  int64_t quota = threshold.quota;
  for (const auto& weight : weights) {
    const auto span = span_of<Bits>(weight);
    const int64_t ties = quota > 0 ? count_ties(span, threshold.key) : 0;
    if (quota == 0) {
      keep_all_from(span, threshold.key);
    } else if (ties <= quota) {
      keep_all_from(span, above);
      quota -= ties;
    } else {
      keep_in_flat_order(weight, threshold.key, quota);
      quota = 0;
    }
  }
}

// With more exact zeros than are to be pruned, those pruned before come first, then the others in
// flat order.
template <typename Bits>
void write_masks_among_zeros(const std::vector<Weight>& weights, at::TensorList previous, int64_t quota) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto values = weights[i].values.contiguous();
    auto mask = previous[i].to(at::kCPU).contiguous().clone();
    const auto span = span_of<Bits>({values, mask});
    for (int64_t j = 0; j < span.n; ++j) {
      if (span.keep[j] && quota > 0 && detail::key_of(span.x[j]) == 0) {
        span.keep[j] = false;
        --quota;
      }
    }
    weights[i].mask.copy_(mask);
  }
}

template <typename Bits>
Bits infinity_key(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
      return static_cast<Bits>(0x7c00);
    case at::kBFloat16:
      return static_cast<Bits>(0x7f80);
    case at::kFloat:
      return static_cast<Bits>(0x7f800000);
    default:
      return static_cast<Bits>(0x7ff0000000000000);
  }
}

// How errors call the tensors.
class Names {
 public:
  Names(const char* call, const std::vector<std::string>& names, size_t count) : call_(call), names_(names) {
    TORCH_CHECK_VALUE(names.empty() || names.size() == count, "torchslim::", call, ": expected ", count,
                      " names, one a tensor, got ", names.size());
  }

  std::string operator[](size_t i) const {
    const std::string index = "tensors[" + std::to_string(i) + "]";
    return names_.empty() ? index : "`" + names_[i] + "` (" + index + ")";
  }

  const char* call() const { return call_; }

 private:
  const char* call_;
  const std::vector<std::string>& names_;
};

// Says from the counts of top digits, at no cost, whether NaN are possible.
template <typename Bits>
bool may_hold_nan(const std::vector<int64_t>& top, Bits infinity) {
  constexpr int kShift = static_cast<int>(8 * sizeof(Bits)) - 1 - detail::kTopDigitBits;
  return std::any_of(top.begin() + static_cast<int64_t>(infinity >> kShift), top.end(),
                     [](int64_t count) { return count > 0; });
}

template <typename Bits>
void check_no_nan(const std::vector<Weight>& weights, const std::vector<size_t>& indices, Bits infinity,
                  const Names& names) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto span = span_of<Bits>(weights[i]);
    const auto nans = std::count_if(span.x, span.x + span.n, [&](Bits x) { return detail::key_of(x) > infinity; });
    TORCH_CHECK_VALUE(nans == 0, "torchslim::", names.call(), ": ", names[indices[i]], " holds ", nans, " NaN among ",
                      span.n, " values; magnitudes must be numbers, so look for the step that diverged");
  }
}

// Fills the masks of `weights`, which are ranked together; `previous` is empty or holds one mask a
// weight.
template <typename Bits>
void mask_together(const std::vector<Weight>& weights, at::TensorList previous, const std::vector<size_t>& indices,
                   double sparsity, const Names& names, Histograms& histograms) {
  std::vector<Span<Bits>> spans;
  int64_t total = 0;
  for (const auto& weight : weights) {
    spans.push_back(span_of<Bits>(weight));
    total += weight.values.numel();
  }
  TORCH_CHECK_VALUE(total <= std::numeric_limits<uint32_t>::max(), "torchslim::", names.call(),
                    ": expected at most 2^32 - 1 weights ranked together, got ", total, "; use the scope layer");
  const auto chunks = chunks_of(spans);
  const bool few = total <= kFewValues;
  const auto top = few ? std::vector<int64_t>() : count_top(chunks, histograms);
  const auto infinity = infinity_key<Bits>(weights.front().values.scalar_type());
  if (few || may_hold_nan(top, infinity)) {
    check_no_nan(weights, indices, infinity, names);
  }

  const auto pruned = static_cast<int64_t>(std::nearbyint(static_cast<double>(total) * sparsity));
  int64_t pruned_before = 0;
  for (const auto& mask : previous) {
    pruned_before += mask.numel() - mask.sum().item<int64_t>();
  }
  if (pruned <= pruned_before) {
    for (size_t i = 0; i < weights.size(); ++i) {
      previous.empty() ? weights[i].mask.fill_(true) : weights[i].mask.copy_(previous[i]);
    }
    return;
  }
  const auto threshold = few ? select_by_partition(chunks, pruned) : select(chunks, top, pruned, histograms);
  if (!previous.empty() && threshold.key == 0 && threshold.quota < threshold.ties) {
    write_masks_among_zeros<Bits>(weights, previous, pruned - pruned_before);
  } else {
    write_masks(weights, chunks, threshold);
  }
}

void mask_together_by_dtype(const std::vector<Weight>& weights, at::TensorList previous,
                            const std::vector<size_t>& indices, double sparsity, const Names& names,
                            Histograms& histograms) {
  switch (weights.front().values.element_size()) {
    case 2:
      return mask_together<uint16_t>(weights, previous, indices, sparsity, names, histograms);
    case 4:
      return mask_together<uint32_t>(weights, previous, indices, sparsity, names, histograms);
    default:
      return mask_together<uint64_t>(weights, previous, indices, sparsity, names, histograms);
  }
}

void check_tensors(at::TensorList tensors, double sparsity, Scope scope, const Names& names) {
  TORCH_CHECK_VALUE(sparsity >= 0.0 && sparsity <= 1.0, "torchslim::", names.call(),
                    ": sparsity must be in [0, 1], got ", sparsity);
  for (size_t i = 0; i < tensors.size(); ++i) {
    TORCH_CHECK_VALUE(tensors[i].defined(), "torchslim::", names.call(), ": ", names[i], " is undefined");
    const auto dtype = tensors[i].scalar_type();
    TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf,
                     "torchslim::", names.call(), ": ", names[i],
                     " must be float32, float64, bfloat16 or float16, got ", c10::toString(dtype));
    TORCH_CHECK_VALUE(tensors[i].layout() == at::kStrided && !tensors[i].is_meta(), "torchslim::", names.call(), ": ",
                      names[i], " must be a dense tensor with data, got layout ", tensors[i].layout(), " on ",
                      tensors[i].device());
    TORCH_CHECK_VALUE(scope == Scope::kLayer || dtype == tensors[0].scalar_type(), "torchslim::", names.call(),
                      ": the global scope ranks tensors of one dtype, but ", names[i], " is ", c10::toString(dtype),
                      " and ", names[0], " is ", c10::toString(tensors[0].scalar_type()),
                      "; convert one, or use the scope layer");
  }
}

Weight weight_of(const at::Tensor& tensor) {
  auto values = tensor.detach().to(at::kCPU);
  if (!values.is_non_overlapping_and_dense()) {
    values = values.contiguous();
  }
  return {values, at::empty_like(values, values.options().dtype(at::kBool))};
}

std::vector<at::Tensor> make_masks(const char* call, at::TensorList tensors, at::TensorList previous, double sparsity,
                                   Scope scope, const std::vector<std::string>& tensor_names) {
  const Names names(call, tensor_names, tensors.size());
  check_tensors(tensors, sparsity, scope, names);
  if (tensors.empty()) {
    return {};
  }
  const c10::NoGradGuard no_grad;
  std::vector<Weight> weights;
  std::vector<size_t> indices;
  for (size_t i = 0; i < tensors.size(); ++i) {
    weights.push_back(weight_of(tensors[i]));
    indices.push_back(i);
  }
  Histograms histograms;
  if (scope == Scope::kGlobal) {
    mask_together_by_dtype(weights, previous, indices, sparsity, names, histograms);
  } else {
    for (const size_t i : indices) {
      mask_together_by_dtype({weights[i]}, previous.empty() ? previous : previous.slice(i, 1), {i}, sparsity, names,
                             histograms);
    }
  }
  std::vector<at::Tensor> masks;
  for (size_t i = 0; i < tensors.size(); ++i) {
    masks.push_back(weights[i].mask.to(tensors[i].device()));
  }
  return masks;
}

}  // namespace

std::vector<at::Tensor> magnitude_masks(at::TensorList tensors, double sparsity, Scope scope,
                                        const std::vector<std::string>& names) {
  return make_masks("magnitude_masks", tensors, {}, sparsity, scope, names);
}

std::vector<at::Tensor> detail::tighten_masks(at::TensorList tensors, at::TensorList previous, double sparsity,
                                              Scope scope, const std::vector<std::string>& names) {
  TORCH_INTERNAL_ASSERT(tensors.size() == previous.size());
  return make_masks("tighten_masks", tensors, previous, sparsity, scope, names);
}

}  // namespace torchslim::prune
