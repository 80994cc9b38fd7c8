// SPDX-License-Identifier: BSD-3-Clause
#include "quant/scale_table.h"

#include <ATen/core/Formatting.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_left_shift.h>
#include <ATen/ops/constant_pad_nd.h>
#include <c10/util/Exception.h>

#include <cmath>

namespace torchslim::quant::detail {
namespace {

void check_scale_values(const char* op, const float* scale, int64_t count, bool per_channel) {
  for (int64_t c = 0; c < count; ++c) {
    if (!(std::isnormal(scale[c]) && scale[c] > 0)) {  // the message costs more than the tensor: build it only now
      check_scale(op, scale[c], per_channel ? " in channel " + std::to_string(c) : "");
    }
  }
}

}  // namespace

void check_companion(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& self) {
  TORCH_CHECK_TYPE(at::isFloatingType(tensor.scalar_type()) && tensor.layout() == at::kStrided, op, ": ", name,
                   " must be a dense floating-point tensor, got ", tensor.scalar_type(), " of layout ",
                   tensor.layout());
  check_device(op, name, tensor, self.device());
}

std::optional<int64_t> check_scale_shape(const char* op, const at::Tensor& self, const at::Tensor& scale,
                                         std::optional<int64_t> axis) {
  check_companion(op, "scale", scale, self);
  if (!axis) {
    TORCH_CHECK_VALUE(scale.sym_numel() == 1, op, ": scale must have one element, got shape ", scale.sym_sizes(),
                      "; one scale per channel needs `axis`");
    return std::nullopt;
  }
  const int64_t dim = check_axis(op, *axis, self.dim());
  TORCH_CHECK_VALUE(scale.dim() == 1 && scale.sym_size(0) == self.sym_size(dim), op,
                    ": scale must have one element per channel, shape [", self.sym_size(dim), "], got shape ",
                    scale.sym_sizes());
  return dim;
}

bool is_clipped(const char* op, std::string_view gradient) {
  TORCH_CHECK_VALUE(gradient == "clipped" || gradient == "passthrough", op,
                    ": gradient must be `clipped` or `passthrough`, got `", gradient, "`");
  return gradient == "clipped";
}

ScaleTable::ScaleTable(const char* op, const at::Tensor& self, const at::Tensor& scale, std::optional<int64_t> axis)
    : axis_(check_scale_shape(op, self, scale, axis)) {
  const auto numbers = scale.detach().to(at::kFloat).contiguous();
  const float* from = numbers.const_data_ptr<float>();
  const int64_t count = numbers.numel();
  check_scale_values(op, from, count, axis_.has_value());
  numbers_.resize(2 * count);
  for (int64_t c = 0; c < count; ++c) {
    numbers_[c] = 1.0f / from[c];
    numbers_[count + c] = from[c];
  }
}

Scales ScaleTable::for_layout(const at::Tensor& value) const {
  const auto channels = static_cast<int64_t>(numbers_.size() / 2);
  const int64_t inner = channels > 1 ? value.stride(*axis_) : value.numel();
  const bool neighbours = inner == 1 && channels > 1;
  return {.inverse_scale = numbers_.data(),
          .scale = numbers_.data() + channels,
          .run = neighbours ? channels : inner,
          .repeat = 1,
          .groups = neighbours ? 1 : channels,
          .neighbours = neighbours};
}

ScaleTensors scale_tensors(const char* op, const at::Tensor& self, const at::Tensor& scale,
                           std::optional<int64_t> axis) {
  const auto dim = check_scale_shape(op, self, scale, axis);
  const auto numbers = scale.detach().to(at::kFloat);
  if (numbers.is_cpu()) {
    const auto dense = numbers.contiguous();
    check_scale_values(op, dense.const_data_ptr<float>(), dense.numel(), dim.has_value());
  }
  std::vector<int64_t> shape(dim ? self.dim() : 0, 1);
  if (dim) {
    shape[*dim] = -1;
  }
  const auto type = self.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto broadcast = numbers.reshape(shape);
  return {broadcast.reciprocal().to(type), broadcast.to(type)};
}

Quantized like_input(const at::Tensor& self, bool with_cut) {
  Quantized result{at::empty_like(self), {}};
  if (with_cut) {
    result.cut = at::empty_symint({(self.sym_numel() + 7) / 8}, self.options().dtype(at::kByte));
  }
  return result;
}

at::Tensor pack_bits(const at::Tensor& flags) {
  const int64_t n = flags.numel();
  const auto bits = at::constant_pad_nd(flags.as_strided({n}, {1}).to(at::kByte), {0, (8 - n % 8) % 8});
  const auto place = at::arange(8, bits.options());
  return at::bitwise_left_shift(bits.reshape({-1, 8}), place).sum(1, false, at::kByte);
}

}  // namespace torchslim::quant::detail
