// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/Formatting.h>
#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>
#include <torch/library.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_group.h>

#include <string>
#include <vector>

#include "quant/fake_quantize.h"

namespace torchslim::quant {
namespace {

constexpr const char* kGroupOp = "torchslim::fake_quantize_group";

// The shape of one number for each group.
c10::SymDimVector group_shape(const at::Tensor& x, int64_t group_size, int64_t axis) {
  const auto sizes = x.sym_sizes();
  c10::SymDimVector shape(sizes.begin(), sizes.end());
  shape[axis] = shape[axis] / group_size;
  return shape;
}

void check_group_numbers(const char* name, const at::Tensor& numbers, const at::Tensor& self, c10::SymIntArrayRef shape,
                         int64_t axis) {
  detail::check_device(kGroupOp, name, numbers, self.device());
  const auto sizes = numbers.sym_sizes();
  bool fits = sizes.size() == shape.size();
  for (size_t dim = 0; fits && dim < shape.size(); ++dim) {
    fits = sizes[dim] == shape[dim] || (static_cast<int64_t>(dim) != axis && sizes[dim] == 1);
  }
  TORCH_CHECK_VALUE(fits, kGroupOp, ": ", name, " must have shape ", shape, ", or 1 in dimensions other than ", axis,
                    ", got shape ", sizes);
}

// Throws an error that names the group, by its place in `scale`, whose numbers are no grid, if one is.
void check_each_group(const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  const auto scales = scale.to(at::kDouble).contiguous(), zero_points = zero_point.to(at::kDouble).contiguous();
  for (int64_t i = 0; i < scales.numel(); ++i) {
    std::vector<int64_t> place(scales.dim());
    for (int64_t dim = scales.dim() - 1, rest = i; dim >= 0; rest /= scales.size(dim--)) {
      place[dim] = rest % scales.size(dim);
    }
    const std::string where = fmt::format(" in group [{}]", fmt::join(place, ", "));
    detail::check_scale(kGroupOp, scales.const_data_ptr<double>()[i], where);
    detail::check_zero_point(kGroupOp, zero_points.const_data_ptr<double>()[i], quant_min, quant_max, where);
  }
}

// Groups become the rows of a matrix, rows its channels. All of it but the rounding is views where `axis` is the last
// dimension of a contiguous tensor.
at::Tensor group_op(const at::Tensor& self, const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                    int64_t quant_max, int64_t group_size, int64_t axis) {
  detail::check_input(kGroupOp, self);
  const int64_t dim = detail::check_axis(kGroupOp, axis, self.dim());
  TORCH_CHECK_VALUE(group_size >= 1 && self.sym_size(dim) % group_size == 0, kGroupOp,
                    ": group_size must be ≥ 1 and divide dimension ", dim, ", which has ", self.sym_size(dim),
                    " elements, got ", group_size);
  detail::check_types(kGroupOp, scale, zero_point);
  detail::check_range(kGroupOp, quant_min, quant_max);
  const auto shape = group_shape(self, group_size, dim);
  check_group_numbers("scale", scale, self, shape, dim);
  check_group_numbers("zero_point", zero_point, self, shape, dim);
  const auto of_each_group = [&](const at::Tensor& numbers) { return numbers.expand_symint(shape); };
  const auto as_row = [&](const at::Tensor& numbers) { return of_each_group(numbers).movedim(dim, -1).reshape({-1}); };
  const auto moved = self.movedim(dim, -1);
  const auto rows = moved.reshape_symint({self.sym_numel() / group_size, group_size});
  try {
    const auto y = fake_quantize(rows, as_row(scale), as_row(zero_point), quant_min, quant_max, /*axis=*/0);
    return y.reshape_symint(moved.sym_sizes()).movedim(-1, dim);
  } catch (const c10::ValueError&) {
    check_each_group(of_each_group(scale), of_each_group(zero_point), quant_min, quant_max);
    throw;
  }
}

}  // namespace

at::Tensor fake_quantize_group(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                               int64_t quant_min, int64_t quant_max, int64_t group_size, int64_t axis) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(kGroupOp, "").typed<decltype(group_op)>();
  return op.call(x, scale, zero_point, quant_min, quant_max, group_size, axis);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  m.def(
      "fake_quantize_group(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max, int group_size, "
      "int axis=-1) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.impl("fake_quantize_group", TORCH_FN(group_op));  // composite: a captured graph holds fake_quantize and views
}

}  // namespace torchslim::quant
