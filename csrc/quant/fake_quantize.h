// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

// What the fake-quantise ops share below the dispatcher.
namespace torchslim::quant::detail {

/// A grid as it comes in: numbers, or (`scale_tensor` defined) tensors.
struct Qparams {
  double scale = 1.0;
  int64_t zero_point = 0;
  at::Tensor scale_tensor = {};
  at::Tensor zero_point_tensor = {};
  int64_t quant_min = 0;
  int64_t quant_max = 0;
  std::optional<int64_t> axis = std::nullopt;
  bool round_zero_point = false;  // half to even, and clamp it: it is learned (CPU only; others get a rounded tensor)
  std::optional<double> clamp_min = std::nullopt;
  std::optional<double> clamp_max = std::nullopt;
  std::optional<uint64_t> seed = std::nullopt;  // rounds stochastically with it; not together with a clamp
};

/// `value` has the strides of the input if that is dense. `cut` (undefined unless asked for) has one bit per element,
/// in the order in which `value` lies in memory: 1 where the gradient is cut.
struct Quantized {
  at::Tensor value;
  at::Tensor cut;
};

/// Fake-quantises `self`; `op` is the name that errors show. One function per backend.
using Forward = Quantized (*)(const char* op, const at::Tensor& self, const Qparams& qparams, bool with_cut);
Quantized forward_cpu(const char* op, const at::Tensor& self, const Qparams& qparams, bool with_cut);
Quantized forward_composite(const char* op, const at::Tensor& self, const Qparams& qparams, bool with_cut);
Quantized forward_meta(const char* op, const at::Tensor& self, const Qparams& qparams, bool with_cut);

/// Returns grad where the bits of `cut` are 0, and 0·grad elsewhere, in the strides `stride`.
at::Tensor backward_cpu(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride);
at::Tensor backward_composite(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride);
at::Tensor backward_meta(const at::Tensor& grad, const at::Tensor& cut, c10::SymIntArrayRef stride);

/// Throws unless `self` is a dense tensor of a type that the ops take.
void check_input(const char* op, const at::Tensor& self);
/// Throws unless `tensor`, the argument `name`, is on the input's device. Without this a tensor without data (Meta) among
/// the arguments makes the whole result one.
void check_device(const char* op, const char* name, const at::Tensor& tensor, c10::Device device);
/// Throws unless `scale` and `zero_point` are of types that a grid can have.
void check_types(const char* op, const at::Tensor& scale, const at::Tensor& zero_point);
/// Throws unless quant_min ≤ quant_max, both within ±2^23.
void check_range(const char* op, int64_t quant_min, int64_t quant_max);
/// Throws unless `scale` is > 0 and a normal float32; `where` ends the message.
void check_scale(const char* op, double scale, const std::string& where = "");
/// Throws unless `zero_point` is a whole number in [quant_min, quant_max].
void check_zero_point(const char* op, double zero_point, int64_t quant_min, int64_t quant_max,
                      const std::string& where = "");
/// Returns `axis` counted from 0. Throws unless it names one of `dims` dimensions.
int64_t check_axis(const char* op, int64_t axis, int64_t dims);
/// Checks all that can be checked without reading tensor data, and numbers. Returns the channel dimension, not negative.
std::optional<int64_t> check_qparams(const char* op, const at::Tensor& self, const Qparams& qparams);

}  // namespace torchslim::quant::detail
