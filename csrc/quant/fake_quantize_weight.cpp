// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>
#include <torchslim/quant/fake_quantize_weight.h>

#include <limits>
#include <vector>

#include "quant/fake_quantize_weight_kernel.h"

namespace torchslim::quant {
namespace {

constexpr const char* kFakeQuantizeWeight = "torchslim::fake_quantize_weight";

void check_fake_quantize_weight(const at::Tensor& weight, int64_t bits) {
  TORCH_CHECK_TYPE(weight.scalar_type() == at::kFloat, kFakeQuantizeWeight, ": weight must be float32, got ",
                   weight.scalar_type());
  TORCH_CHECK_VALUE(weight.dim() >= 2, kFakeQuantizeWeight, ": weight must be (out_channels, ...), got shape ",
                    weight.sizes());
  TORCH_CHECK_VALUE(bits >= 2 && bits <= 8, kFakeQuantizeWeight, ": bits must be in [2, 8], got ", bits);
}

float largest_code_of(int64_t bits) { return static_cast<float>((int64_t{1} << (bits - 1)) - 1); }

/// Whether every output channel is one run of memory and they follow each other, in whatever order
/// within.
bool has_contiguous_channels(const at::Tensor& weight) {
  return weight.is_non_overlapping_and_dense() &&
         (weight.size(0) == 1 || weight.stride(0) * weight.size(0) == weight.numel());
}

std::tuple<at::Tensor, at::Tensor> fake_quantize_weight_meta(const at::Tensor& weight, int64_t bits) {
  check_fake_quantize_weight(weight, bits);
  return {at::empty_like(weight), weight.new_empty_symint({weight.sym_size(0)})};
}

std::tuple<at::Tensor, at::Tensor> fake_quantize_weight_cpu(const at::Tensor& weight, int64_t bits) {
  check_fake_quantize_weight(weight, bits);
  constexpr int64_t kElementsPerThread = 32768;
  const at::Tensor input = has_contiguous_channels(weight) ? weight : weight.contiguous();
  const int64_t channels = input.size(0);
  at::Tensor result = at::empty_like(input);
  at::Tensor scale = input.new_empty({channels});
  if (channels == 0) {
    return {result, scale};
  }
  const int64_t size = input.numel() / channels;
  const float* from = input.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  float* scales = scale.mutable_data_ptr<float>();
  at::parallel_for(0, channels, kElementsPerThread / (size + 1) + 1, [&](int64_t begin, int64_t end) {
    TORCHSLIM_CALL_KERNEL(fake_quantize_weight_f32, from + begin * size, to + begin * size, scales + begin, end - begin,
                          size, largest_code_of(bits));
  });
  return {result, scale};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> fake_quantize_weight(const at::Tensor& weight, int64_t bits) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kFakeQuantizeWeight, "")
                             .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, int64_t)>();
  return op.call(weight, bits);
}

std::tuple<at::Tensor, at::Tensor> detail::fake_quantize_weight_composite(const at::Tensor& weight, int64_t bits) {
  check_fake_quantize_weight(weight, bits);
  std::vector<int64_t> within(weight.dim() - 1);
  for (int64_t i = 0; i < weight.dim() - 1; ++i) {
    within[i] = i + 1;
  }
  std::vector<int64_t> broadcast(weight.dim(), 1);
  broadcast[0] = weight.size(0);
  at::Tensor scale = weight.abs().amax(within) / static_cast<double>(largest_code_of(bits));
  scale = scale.masked_fill(scale < std::numeric_limits<float>::min(), 1.0);
  const at::Tensor codes = (weight * scale.reciprocal().view(broadcast)).round_().add_(0.0);
  return {codes * scale.view(broadcast), scale};
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) { m.def("fake_quantize_weight(Tensor weight, int bits=8) -> (Tensor, Tensor)"); }

TORCH_LIBRARY_IMPL(torchslim, CPU, m) { m.impl("fake_quantize_weight", fake_quantize_weight_cpu); }

TORCH_LIBRARY_IMPL(torchslim, Meta, m) { m.impl("fake_quantize_weight", fake_quantize_weight_meta); }

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  m.impl("fake_quantize_weight", detail::fake_quantize_weight_composite);
}

}  // namespace torchslim::quant
