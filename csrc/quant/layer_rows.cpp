// SPDX-License-Identifier: BSD-3-Clause
#include "quant/layer_rows.h"

#include <ATen/core/Formatting.h>
#include <ATen/ops/im2col.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "quant/fake_quantize.h"

namespace torchslim::quant::detail {
namespace {

constexpr int64_t kChunkNumbers = int64_t{1} << 22;  // 16 MB of float32

// Returns `numbers` for height and width: those of the spatial dimensions, before which a 1-d layer has `none`.
std::vector<int64_t> for_two(const char* who, const char* name, const std::vector<int64_t>& numbers, int64_t dims,
                             int64_t least, int64_t none) {
  const auto size = static_cast<int64_t>(numbers.size());
  TORCH_CHECK_VALUE(size == 1 || size == dims, who, ": ", name, " must have 1 number or one for each of the ", dims,
                    " spatial dimensions, got ", size);
  for (const int64_t number : numbers) {
    TORCH_CHECK_VALUE(number >= least, who, ": ", name, " must be >= ", least, ", got ", number);
  }
  return {dims == 1 ? none : numbers.front(), numbers.back()};
}

}  // namespace

LayerRows::LayerRows(const char* who, at::IntArrayRef weight_shape, const LayerGeometry& geometry)
    : who_(who), weight_shape_(weight_shape.vec()), groups_(geometry.groups()), width_(1) {
  const auto dims = static_cast<int64_t>(weight_shape.size()) - 2;
  TORCH_CHECK_VALUE(dims >= 0 && dims <= 2, who,
                    ": weight must be (O, I) of a linear layer or (O, I/groups, k) or (O, I/groups, kh, kw) of a "
                    "convolution, got shape ",
                    weight_shape);
  for (const int64_t size : weight_shape) {
    TORCH_CHECK_VALUE(size > 0, who, ": weight must not be empty, got shape ", weight_shape);
  }
  TORCH_CHECK_VALUE(groups_ >= 1 && weight_shape[0] % groups_ == 0 && (dims > 0 || groups_ == 1), who,
                    ": groups must divide the ", weight_shape[0],
                    " output channels, and be 1 for a linear layer, got groups ", groups_, " and weight ",
                    weight_shape);
  for (const int64_t size : weight_shape.slice(1)) {
    width_ *= size;
  }
  if (dims > 0) {
    kernel_ = {dims == 1 ? 1 : weight_shape[2], weight_shape.back()};
    stride_ = for_two(who, "stride", geometry.stride(), dims, 1, 1);
    padding_ = for_two(who, "padding", geometry.padding(), dims, 0, 0);
    dilation_ = for_two(who, "dilation", geometry.dilation(), dims, 1, 1);
  }
}

at::Tensor LayerRows::weight_rows(const at::Tensor& weight) const {
  return weight.reshape({groups_, out_channels() / groups_, width_});
}

std::vector<int64_t> LayerRows::output_shape(const at::Tensor& input) const {
  auto shape = input.sizes().vec();
  if (is_linear()) {
    shape.back() = out_channels();
    return shape;
  }
  shape[1] = out_channels();
  const size_t first = shape.size() == 3 ? 1 : 0;
  for (size_t i = first; i < 2; ++i) {
    int64_t& size = shape[2 + i - first];
    const int64_t room = size + 2 * padding_[i] - dilation_[i] * (kernel_[i] - 1) - 1;
    TORCH_CHECK_VALUE(room >= 0, who_, ": the kernel of a weight ", weight_shape_, " is larger than the padded input ",
                      input.sizes());
    size = room / stride_[i] + 1;
  }
  return shape;
}

at::Tensor LayerRows::samples_of(const at::Tensor& input) const {
  check_input(who_, input);
  const auto dims = static_cast<int64_t>(weight_shape_.size());
  const bool fits = is_linear() ? input.dim() >= 1 && input.size(-1) == width_
                                : input.dim() == dims && input.size(1) == weight_shape_[1] * groups_;
  TORCH_CHECK_VALUE(fits, who_, ": a layer with weight ", weight_shape_, " and groups ", groups_, " takes inputs ",
                    is_linear() ? "(..., I)"
                    : dims == 3 ? "(N, I, L)"
                                : "(N, I, H, W)",
                    ", got shape ", input.sizes());
  TORCH_CHECK_VALUE(input.numel() > 0, who_, ": the input must not be empty, got shape ", input.sizes());
  TORCH_CHECK_VALUE(input.detach().isfinite().all().item<bool>(), who_, ": the input holds NaN or infinity");
  output_shape(input);  // refuses a kernel that is too large
  if (is_linear()) {
    return input.detach().reshape({-1, width_});
  }
  return dims == 3 ? input.detach().unsqueeze(2) : input.detach();
}

at::Tensor LayerRows::rows_of(const at::Tensor& samples) const {
  const auto numbers = samples.to(at::kCPU, at::kFloat);
  if (is_linear()) {
    return numbers.unsqueeze(0);
  }
  const auto columns = at::im2col(numbers.contiguous(), kernel_, dilation_, padding_, stride_);  // (N, I·kh·kw, L)
  return columns.view({samples.size(0), groups_, width_, -1}).permute({1, 0, 3, 2}).reshape({groups_, -1, width_});
}

void LayerRows::for_each_chunk(const at::Tensor& input,
                               const std::function<void(const at::Tensor&, int64_t, int64_t)>& use) const {
  const auto samples = samples_of(input);
  int64_t numbers = groups_ * width_;  // of the rows of one sample
  if (!is_linear()) {
    const auto shape = output_shape(input);
    numbers *= shape[2] * (shape.size() == 4 ? shape[3] : 1);
  }
  const int64_t step = std::max<int64_t>(1, kChunkNumbers / numbers);
  for (int64_t begin = 0; begin < samples.size(0); begin += step) {
    const int64_t end = std::min(begin + step, samples.size(0));
    use(rows_of(samples.slice(0, begin, end)), begin, end);
  }
}

void LayerRows::for_each_pair(const at::Tensor& input, const at::Tensor& beside,
                              const std::function<void(const at::Tensor&, const at::Tensor&)>& use) const {
  const auto others = samples_of(beside);
  for_each_chunk(input, [&](const at::Tensor& rows, int64_t begin, int64_t end) {
    use(rows, rows_of(others.slice(0, begin, end)));
  });
}

at::Tensor LayerRows::output_rows(const at::Tensor& output, int64_t begin, int64_t end) const {
  const auto flat = is_linear() ? output.detach().reshape({-1, out_channels()}) : output.detach();
  const auto numbers = flat.slice(0, begin, end).to(at::kCPU, at::kFloat);
  if (is_linear()) {
    return numbers.unsqueeze(0);
  }
  const int64_t each = out_channels() / groups_;
  return numbers.reshape({end - begin, groups_, each, -1}).permute({1, 0, 3, 2}).reshape({groups_, -1, each});
}

void LayerRows::check_output(const at::Tensor& input, const at::Tensor& output) const {
  samples_of(input);
  const auto expected = output_shape(input);
  TORCH_CHECK_VALUE(output.sizes() == expected, who_, ": for an input ", input.sizes(),
                    " the layer's output has shape ", at::IntArrayRef(expected), ", got a target of shape ",
                    output.sizes());
  check_input(who_, output);
  TORCH_CHECK_VALUE(output.detach().isfinite().all().item<bool>(), who_, ": the target holds NaN or infinity");
}

}  // namespace torchslim::quant::detail
