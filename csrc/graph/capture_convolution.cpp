// SPDX-License-Identifier: BSD-3-Clause
// Convolutions over (N, C, L) and (N, C, H, W), transposed ones too.
#include <torchslim/graph/transposed_weight.h>

#include "graph/importer.h"

namespace torchslim::graph::detail {
namespace {

using torch::jit::Value;

// padding="same" as numbers, and how many zeros torch pads behind the image besides: one where the total is odd.
struct NamedPadding {
  std::array<int64_t, 2> padding{0, 0}, behind{0, 0};
};

NamedPadding named_padding(const Call& call, const Window& window) {
  NamedPadding named;
  if (call.constant("padding")->value.toStringRef() == "valid") {
    return named;
  }
  for (size_t i = 0; i < 2; ++i) {
    const int64_t total = window.dilation[i] * (window.kernel[i] - 1);
    named.padding[i] = total / 2;
    named.behind[i] = total % 2;
  }
  return named;
}

bool has_named_padding(const Call& call) {
  const Constant* padding = call.constant("padding");
  return padding != nullptr && padding->value.isString();
}

// The first value on the way back from `value`, through what only arranges elements, that `wanted` holds for; or null.
template <typename Wanted>
const Value* behind_views(const Call& call, const Value* value, Wanted wanted) {
  while (const Constant* constant = call.importer().constant(value)) {
    if (wanted(*constant)) {
      return value;
    }
    if (value->node()->inputs().empty() || !is_view(value->node()->kind().toQualString())) {
      break;
    }
    value = value->node()->input(0);
  }
  return nullptr;
}

struct WeightOnGrid {
  NamedTensor weight;
  std::optional<Grid> grid;
};

// Prepared models round the weight of a transposed convolution with its output channels first, and turn it back.
WeightOnGrid transposed_convolution_weight(const Call& call, int64_t groups) {
  const at::Tensor& given = call.constant("weight")->value.toTensor();
  const Value* value = behind_views(call, call.value("weight"), [](const Constant& c) { return c.grid.has_value(); });
  if (value == nullptr) {
    return {call.parameter("weight"), std::nullopt};
  }
  const Constant& rounded = *call.importer().constant(value);
  if (rounded.value.toTensor().dim() != given.dim() || rounded.grid->axis.value_or(0) != 0 ||
      !transposed_weight(rounded.value.toTensor(), groups).equal(given)) {
    return {call.parameter("weight"), std::nullopt};  // arranged otherwise: a constant as any
  }
  NamedTensor weight{"", transposed_weight(rounded.raw, groups)};
  const Value* named =
      behind_views(call, value->node()->input(0), [](const Constant& c) { return !c.grid && !c.name.empty(); });
  if (named != nullptr) {
    const Constant& parameter = *call.importer().constant(named);
    if (parameter.value.toTensor().equal(weight.value)) {
      weight = {parameter.name, parameter.value.toTensor()};
    }
  }
  check_parameter(weight, "(weight of " + call.op() + ")");
  return {weight, rounded.grid};
}

// The numbers of an argument for height and width; in one dimension there is no height.
std::array<int64_t, 2> window_sizes(const Call& call, const char* argument, bool one_dimension, int64_t height) {
  std::array<int64_t, 2> sizes = call.pair(argument);
  if (one_dimension) {
    sizes[0] = height;
  }
  return sizes;
}

Window convolution_window(const Call& call, const at::Tensor& weight, bool transposed) {
  const bool one = weight.dim() == 3;
  Window window;
  window.kernel = {one ? 1 : weight.size(2), weight.size(-1)};
  window.stride = window_sizes(call, "stride", one, 1);
  window.dilation = window_sizes(call, "dilation", one, 1);
  window.groups = call.integer("groups");
  window.padding =
      has_named_padding(call) ? named_padding(call, window).padding : window_sizes(call, "padding", one, 0);
  if (transposed) {
    window.output_padding = window_sizes(call, "output_padding", one, 0);
  }
  return window;
}

}  // namespace

void translate_convolution(Call& call) {
  Activation input = call.activation("input");
  const bool transposed = call.has("transposed") && call.boolean("transposed");
  const size_t dims = input.shape.size();
  const Constant* given = call.constant("weight");
  if ((dims != 3 && dims != 4) || given == nullptr || given->value.toTensor().dim() != static_cast<int64_t>(dims)) {
    return translate_aten(call);
  }
  input = call.image("input", dims);
  const NamedTensor bias = call.optional_parameter("bias");
  const Window window = convolution_window(call, given->value.toTensor(), transposed);
  if (has_named_padding(call)) {
    const NamedPadding named = named_padding(call, window);
    for (size_t i = 4 - dims; i < 2; ++i) {
      input = padded(call, input, static_cast<int64_t>(dims - 2 + i), 0, named.behind[i]);
    }
  }
  const WeightOnGrid weight = transposed ? transposed_convolution_weight(call, window.groups)
                                         : WeightOnGrid{call.parameter("weight"), given->grid};
  std::vector<int64_t> shape{input.shape[0],
                             transposed ? weight.weight.value.size(1) * window.groups : weight.weight.value.size(0)};
  for (size_t i = 4 - dims; i < 2; ++i) {
    const int64_t size = input.shape[dims - 2 + i];
    const int64_t reach = window.dilation[i] * (window.kernel[i] - 1) + 1;
    shape.push_back(transposed
                        ? (size - 1) * window.stride[i] - 2 * window.padding[i] + reach + window.output_padding[i]
                        : (size + 2 * window.padding[i] - reach) / window.stride[i] + 1);
  }
  constexpr OpKind kKinds[2][2] = {{OpKind::kConv1d, OpKind::kConv2d},
                                   {OpKind::kConvTranspose1d, OpKind::kConvTranspose2d}};
  call.emit(kKinds[transposed ? 1 : 0][dims - 3], {&input}, std::move(shape));
  Node& node = call.emitted();
  node.window = window;
  node.weight = weight.weight;
  node.bias = bias;
  node.weight_grid = weight.grid;
  if (transposed && weight.weight.name.find('.') != std::string::npos) {
    node.layer = weight.weight.name.substr(0, weight.weight.name.rfind('.'));  // the weight itself is one of a view
  }
}

}  // namespace torchslim::graph::detail
