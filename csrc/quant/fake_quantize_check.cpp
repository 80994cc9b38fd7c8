// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/Formatting.h>
#include <c10/util/Exception.h>

#include <cmath>

#include "quant/fake_quantize.h"

namespace torchslim::quant::detail {
namespace {

constexpr int64_t kLargestCode = int64_t{1} << 23;  // codes and their differences are exact in float32

void check_shapes(const char* op, const Qparams& qparams, c10::SymIntArrayRef expected) {
  const auto& scale = qparams.scale_tensor;
  const auto& zero_point = qparams.zero_point_tensor;
  const bool one_each = !qparams.axis && scale.sym_numel() == 1 && zero_point.sym_numel() == 1;
  TORCH_CHECK_VALUE(one_each || scale.sym_sizes() == expected, op, ": scale must have ",
                    qparams.axis ? "one element per channel, shape " : "one element, shape ", expected, ", got shape ",
                    scale.sym_sizes(), qparams.axis ? "" : "; one scale per channel needs `axis`");
  TORCH_CHECK_VALUE(one_each || zero_point.sym_sizes() == expected, op, ": zero_point must have scale's shape ",
                    expected, ", got shape ", zero_point.sym_sizes());
}

}  // namespace

void check_input(const char* op, const at::Tensor& self) {
  const auto type = self.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, op,
                   ": expected a float32, float64, bfloat16 or float16 tensor, got ", type, "; convert it first");
  TORCH_CHECK_TYPE(self.layout() == at::kStrided, op, ": expected a dense tensor, got layout ", self.layout(),
                   "; call to_dense() first");
}

void check_device(const char* op, const char* name, const at::Tensor& tensor, c10::Device device) {
  TORCH_CHECK_VALUE(tensor.device() == device, op, ": ", name, " must be on the input's device ", device, ", got ",
                    tensor.device(), "; move it with to()");
}

void check_types(const char* op, const at::Tensor& scale, const at::Tensor& zero_point) {
  TORCH_CHECK_TYPE(at::isFloatingType(scale.scalar_type()), op, ": scale must be a floating-point tensor, got ",
                   scale.scalar_type());
  TORCH_CHECK_TYPE(zero_point.scalar_type() != at::kBool && !at::isComplexType(zero_point.scalar_type()), op,
                   ": zero_point must be an integer tensor, got ", zero_point.scalar_type());
}

void check_range(const char* op, int64_t quant_min, int64_t quant_max) {
  TORCH_CHECK_VALUE(quant_min <= quant_max, op, ": the range is empty: quant_min ", quant_min, " > quant_max ",
                    quant_max);
  TORCH_CHECK_VALUE(quant_min >= -kLargestCode && quant_max <= kLargestCode, op,
                    ": quant_min and quant_max must be in [", -kLargestCode, ", ", kLargestCode, "], got ", quant_min,
                    " and ", quant_max);
}

void check_scale(const char* op, double scale, const std::string& where) {
  TORCH_CHECK_VALUE(scale > 0, op, ": scale must be > 0, got ", scale, where);
  TORCH_CHECK_VALUE(std::isnormal(static_cast<float>(scale)), op, ": scale must be a normal float32, got ", scale,
                    where);
}

void check_zero_point(const char* op, double zero_point, int64_t quant_min, int64_t quant_max,
                      const std::string& where) {
  TORCH_CHECK_VALUE(zero_point == std::floor(zero_point), op, ": zero_point must be a whole number, got ", zero_point,
                    where);
  TORCH_CHECK_VALUE(zero_point >= static_cast<double>(quant_min) && zero_point <= static_cast<double>(quant_max), op,
                    ": zero_point must be in [quant_min, quant_max] = [", quant_min, ", ", quant_max, "], got ",
                    zero_point, where);
}

int64_t check_axis(const char* op, int64_t axis, int64_t dims) {
  TORCH_CHECK_VALUE(axis >= -dims && axis < dims, op, ": axis must be in [", -dims, ", ", dims - 1,
                    "] for a tensor of ", dims, " dimensions, got ", axis);
  return axis < 0 ? axis + dims : axis;
}

std::optional<int64_t> check_qparams(const char* op, const at::Tensor& self, const Qparams& qparams) {
  check_input(op, self);
  check_range(op, qparams.quant_min, qparams.quant_max);
  const double clamp_min = qparams.clamp_min.value_or(-INFINITY);
  const double clamp_max = qparams.clamp_max.value_or(INFINITY);
  TORCH_CHECK_VALUE(clamp_min < clamp_max, op, ": clamp_min must be < clamp_max, got ", clamp_min, " and ", clamp_max);
  if (!qparams.scale_tensor.defined()) {
    check_scale(op, qparams.scale);
    check_zero_point(op, static_cast<double>(qparams.zero_point), qparams.quant_min, qparams.quant_max);
    return std::nullopt;
  }
  check_types(op, qparams.scale_tensor, qparams.zero_point_tensor);
  check_device(op, "scale", qparams.scale_tensor, self.device());
  check_device(op, "zero_point", qparams.zero_point_tensor, self.device());
  if (!qparams.axis) {
    check_shapes(op, qparams, {});
    return std::nullopt;
  }
  const int64_t axis = check_axis(op, *qparams.axis, self.dim());
  const c10::SymInt channels = self.sym_size(axis);
  check_shapes(op, qparams, channels);
  return axis;
}

}  // namespace torchslim::quant::detail
