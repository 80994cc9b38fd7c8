// SPDX-License-Identifier: BSD-3-Clause
// How each operation of a trace becomes a node of ours. Everything is recognised by kind and arguments.
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <set>

#include "graph/importer.h"

namespace torchslim::graph::detail {
namespace {

using torch::jit::Value;

int64_t product(const std::vector<int64_t>& shape, size_t from) {
  int64_t result = 1;
  for (size_t i = from; i < shape.size(); ++i) {
    result *= shape[i];
  }
  return result;
}

// --- linear ----------------------------------------------------------------------------------------------------

Node& emit_linear(Call& call, const Activation& input, const Constant& weight, const NamedTensor& bias) {
  const NamedTensor named{weight.name, weight.grid ? weight.raw : weight.value.toTensor()};
  check_parameter(named, "(weight of " + call.op() + ")");
  std::vector<int64_t> shape = input.shape;
  shape.back() = named.value.size(0);
  call.emit(OpKind::kLinear, {&input}, std::move(shape));
  Node& node = call.emitted();
  node.weight = named;
  node.bias = bias;
  node.weight_grid = weight.grid;
  if (node.layer.empty() && !named.name.empty() && named.name.find('.') != std::string::npos) {
    node.layer = named.name.substr(0, named.name.rfind('.'));
  }
  return node;
}

// The (in, out) operand of a product is a transposed (out, in) weight: find that, with its name and grid.
Constant transposed_weight(const Call& call, const char* argument) {
  const Constant* found = call.constant(argument);
  if (found == nullptr || !found->value.isTensor() || found->value.toTensor().dim() != 2) {
    call.refuse(std::string("expected argument `") + argument + "` to be a matrix of parameters",
                "products of two tensors that depend on the input are not supported");
  }
  torch::jit::Node* maker = call.value(argument)->node();
  const std::string op = maker->kind().toQualString();
  if (op == "aten::t" || op == "aten::transpose" || op == "aten::numpy_T") {
    if (const Constant* weight = call.importer().constant(maker->input(0))) {
      return *weight;
    }
  }
  return {found->value.toTensor().t(), ""};
}

void translate_linear(Call& call) {
  const Activation input = materialised(call, call.activation("input"));
  call.parameter("weight");
  const Constant weight = *call.constant("weight");
  emit_linear(call, input, weight, call.optional_parameter("bias"));
}

void translate_addmm(Call& call) {
  const Activation input = materialised(call, call.activation("mat1"));
  if (call.number("beta") != 1 || call.number("alpha") != 1) {
    call.refuse("expected beta and alpha of 1", "use torch::nn::Linear");
  }
  emit_linear(call, input, transposed_weight(call, "mat2"), call.parameter("self"));
}

void translate_matmul(Call& call) {
  if (call.constant("self") != nullptr || call.constant(call.has("mat2") ? "mat2" : "other") == nullptr) {
    return translate_aten(call);
  }
  const Activation input = materialised(call, call.activation("self"));
  emit_linear(call, input, transposed_weight(call, call.has("mat2") ? "mat2" : "other"), {});
}

// matmul(x, w) + b, where nothing else reads the product: b is the bias of the linear node.
bool attach_bias(Call& call, const char* sum, const char* term) {
  const Constant* bias = call.constant(term);
  const Value* product = call.value(sum);
  Node* linear = call.importer().producer(product);
  if (bias == nullptr || !bias->value.isTensor() || linear == nullptr || linear->kind != OpKind::kLinear ||
      linear->bias.defined() || product->uses().size() != 1) {
    return false;
  }
  const at::Tensor& value = bias->value.toTensor();
  if (value.numel() != linear->weight.value.size(0) || value.size(-1) != value.numel()) {
    return false;
  }
  linear->bias = {bias->name, value.reshape({-1})};
  if (value.dim() == 1) {
    linear->bias.value = value;
  }
  check_parameter(linear->bias, "(bias of a linear layer)");
  call.forward(call.activation(sum), call.activation(sum).shape);
  return true;
}

void translate_add(Call& call) {
  if (attach_bias(call, "self", "other") || attach_bias(call, "other", "self")) {
    return;
  }
  if (call.number("alpha") != 1 || call.constant("self") != nullptr || call.constant("other") != nullptr) {
    return translate_aten(call);
  }
  const Activation left = materialised(call, call.activation("self"));
  const Activation right = materialised(call, call.activation("other"));
  if (left.shape != right.shape) {
    return translate_aten(call);
  }
  call.emit(OpKind::kAdd, {&left, &right}, left.shape);
}

// --- normalisation, activations, quantisation --------------------------------------------------------------------

void translate_batch_norm(Call& call) {
  Activation input = call.activation("input");
  if (call.boolean("training")) {
    call.refuse("batch norm uses the statistics of the batch",
                "call eval() before tracing, and keep track_running_stats on");
  }
  // Behind a layer with a channel for each of its own, which takes it in; elsewhere over images alone.
  const Node& before = *call.importer().producer(input);
  const size_t dims = input.shape.size();
  const bool behind_layer = (dims == 2 && before.kind == OpKind::kLinear) || (dims == 3 && is_convolution(before.kind));
  if (dims != 4 && !behind_layer) {
    return translate_aten(call);
  }
  input = call.image("input", dims);
  NamedTensor weight = call.optional_parameter("weight");
  NamedTensor bias = call.optional_parameter("bias");
  const NamedTensor mean = call.parameter("running_mean");
  const NamedTensor var = call.parameter("running_var");
  if (!weight.defined()) {
    weight.value = at::ones(mean.value.sizes(), mean.value.options());
  }
  if (!bias.defined()) {
    bias.value = at::zeros(mean.value.sizes(), mean.value.options());
  }
  const double eps = call.number("eps");
  call.emit(OpKind::kBatchNorm2d, {&input}, input.shape);
  Node& node = call.emitted();
  node.weight = weight;
  node.bias = bias;
  node.running_mean = mean;
  node.running_var = var;
  node.eps = eps;
  node.momentum = call.number("momentum");
}

void emit_activation(Call& call, OpKind kind) {
  const Activation input = materialised(call, call.activation("self"));
  call.emit(kind, {&input}, input.shape);
}

void translate_relu(Call& call) { emit_activation(call, OpKind::kRelu); }
void translate_relu6(Call& call) { emit_activation(call, OpKind::kRelu6); }

std::optional<double> bound(const Call& call, const char* argument) {
  return !call.has(argument) || call.is_none(argument) ? std::nullopt : std::optional<double>(call.number(argument));
}

void emit_clamp(Call& call, std::optional<double> low, std::optional<double> high) {
  if (low != 0.0 || (high && high != 6.0)) {
    return translate_aten(call);
  }
  emit_activation(call, high ? OpKind::kRelu6 : OpKind::kRelu);
}

void translate_hardtanh(Call& call) { emit_clamp(call, bound(call, "min_val"), bound(call, "max_val")); }

void translate_clamp(Call& call) { emit_clamp(call, bound(call, "min"), bound(call, "max")); }

// A number or tensor of qparams as the tensor that a Grid holds.
at::Tensor qparam(const Call& call, const char* argument, at::ScalarType dtype) {
  const Constant* found = call.constant(argument);
  if (found == nullptr) {
    call.refuse(std::string("argument `") + argument + "` depends on the input (dynamic quantisation)",
                "freeze the observers with eval() before tracing");
  }
  return found->value.isTensor() ? found->value.toTensor().to(dtype)
                                 : at::scalar_tensor(found->value.toScalar(), dtype);
}

Grid grid_of(const Call& call) {
  Grid grid;
  grid.scale = qparam(call, "scale", at::kFloat);
  grid.zero_point = qparam(call, "zero_point", at::kInt);
  grid.quant_min = call.integer("quant_min");
  grid.quant_max = call.integer("quant_max");
  if (call.has("axis") && !call.is_none("axis")) {
    grid.axis = call.integer("axis");
  } else if (grid.scale.dim() > 0) {
    grid.scale = grid.scale.reshape({});
    grid.zero_point = grid.zero_point.reshape({});
  }
  return grid;
}

void translate_fake_quantize(Call& call) {
  const Activation input = materialised(call, call.activation("self"));
  Grid grid = grid_of(call);
  if (grid.axis) {
    call.refuse("an activation is quantised per channel", "quantise activations per tensor");
  }
  call.emit(OpKind::kFakeQuantize, {&input}, input.shape);
  call.emitted().grid = std::move(grid);
}

// ReLU or ReLU6 and the grid behind it in one operation: two nodes.
void translate_clamp_fake_quantize(Call& call) {
  if (!call.is_none("clamp_min") || !call.is_none("clamp_max")) {
    emit_clamp(call, bound(call, "clamp_min"), bound(call, "clamp_max"));
    const Activation activated{call.importer().last_node(), {}};
    const std::vector<int64_t> shape = call.emitted().shape;
    Grid grid = grid_of(call);
    call.emit(OpKind::kFakeQuantize, {&activated}, shape);
    call.emitted().grid = std::move(grid);
  } else {
    translate_fake_quantize(call);
  }
}

void refuse_observer(Call& call) {
  call.refuse("an observer is on: the ranges still move", "call eval() before tracing");
}

// --- pooling ---------------------------------------------------------------------------------------------------

int64_t pooled_size(int64_t size, const Window& window, size_t i) {
  const int64_t reach = window.dilation[i] * (window.kernel[i] - 1) + 1;
  const int64_t span = size + 2 * window.padding[i] - reach;
  int64_t result = (window.ceil_mode ? span + window.stride[i] - 1 : span) / window.stride[i] + 1;
  // A window that starts in the padding at the end is dropped.
  if (window.ceil_mode && (result - 1) * window.stride[i] >= size + window.padding[i]) {
    --result;
  }
  return result;
}

Window pool_window(const Call& call) {
  Window window;
  window.kernel = call.pair("kernel_size");
  window.stride = call.ints("stride").empty() ? window.kernel : call.pair("stride");
  window.padding = call.pair("padding");
  window.ceil_mode = call.boolean("ceil_mode");
  return window;
}

void emit_pool(Call& call, OpKind kind, const Window& window) {
  const Activation input = call.image("self", 4);
  call.emit(
      kind, {&input},
      {input.shape[0], input.shape[1], pooled_size(input.shape[2], window, 0), pooled_size(input.shape[3], window, 1)});
  call.emitted().window = window;
}

void translate_max_pool(Call& call) {
  Window window = pool_window(call);
  window.dilation = call.pair("dilation");
  emit_pool(call, OpKind::kMaxPool2d, window);
}

void emit_global_pool(Call& call, const Activation& input) {
  call.emit(OpKind::kGlobalAvgPool, {&input}, {input.shape[0], input.shape[1], 1, 1});
}

void translate_avg_pool(Call& call) {
  Window window = pool_window(call);
  window.count_include_pad = call.boolean("count_include_pad");
  if ((call.has("divisor_override") && !call.is_none("divisor_override")) ||
      call.activation("self").shape.size() != 4) {
    return translate_aten(call);
  }
  const Activation input = call.image("self", 4);
  // avg_pool2d(x, x.shape[2:]) is a global pool at any size.
  if (call.constant("kernel_size")->from_shape && window.padding == std::array<int64_t, 2>{0, 0} &&
      window.kernel == std::array<int64_t, 2>{input.shape[2], input.shape[3]}) {
    emit_global_pool(call, input);
    return;
  }
  emit_pool(call, OpKind::kAvgPool2d, window);
}

void translate_adaptive_avg_pool(Call& call) {
  const Activation input = call.image("self", 4);
  const std::array<int64_t, 2> size = call.pair("output_size");
  if (size == std::array<int64_t, 2>{1, 1}) {
    emit_global_pool(call, input);
    return;
  }
  if (size == std::array<int64_t, 2>{input.shape[2], input.shape[3]}) {
    call.forward(input, input.shape);
    return;
  }
  translate_aten(call);
}

void translate_mean(Call& call) {
  Activation input = call.activation("self");
  std::set<int64_t> dims;
  if (call.has("dim") && !call.is_none("dim")) {
    for (const int64_t dim : call.ints("dim")) {
      dims.insert(dim < 0 ? dim + static_cast<int64_t>(input.shape.size()) : dim);
    }
  }
  if (dims != std::set<int64_t>{2, 3} || input.shape.size() != 4 || input.batch_dim != 0) {
    return translate_aten(call);
  }
  input = call.image("self", 4);
  emit_global_pool(call, input);
  if (call.boolean("keepdim")) {
    return;
  }
  const Activation pooled{call.importer().last_node(), {}};
  call.emit(OpKind::kFlatten, {&pooled}, {input.shape[0], input.shape[1]});
}

// --- shapes ----------------------------------------------------------------------------------------------------

void emit_flatten(Call& call) {
  const Activation input = call.activation("self");
  const std::vector<int64_t> shape{input.shape.at(0), product(input.shape, 1)};
  if (call.importer().producer(input)->shape == shape) {
    call.forward(input, shape);
  } else {
    call.emit(OpKind::kFlatten, {&input}, shape);
  }
}

void translate_flatten(Call& call) {
  const Activation input = call.activation("self");
  const int64_t dims = static_cast<int64_t>(input.shape.size());
  const int64_t first = call.integer("start_dim");
  const int64_t last = call.integer("end_dim");
  if (dims < 2 || input.batch_dim != 0 || (first < 0 ? first + dims : first) != 1 ||
      (last < 0 ? last + dims : last) != dims - 1) {
    return translate_aten(call);
  }
  emit_flatten(call);
}

// view or reshape to (N, -1), (N, F) or (-1, F).
void translate_view(Call& call) {
  const Activation input = call.activation("self");
  const char* argument = call.has("size") ? "size" : "shape";
  const std::vector<int64_t> size = call.ints(argument);
  const Constant& sizes = *call.constant(argument);
  if (size == input.shape && sizes.batch_at(0) == Batch::kExact) {
    call.forward(input, input.shape);
    return;
  }
  const int64_t features = product(input.shape, 1);
  if (size.size() != 2 || input.batch_dim != 0 || (size[0] != input.shape[0] && size[0] != -1) ||
      (size[1] != features && size[1] != -1) || sizes.batch_at(1) != Batch::kNone) {
    const bool follows =
        std::any_of(sizes.batch.begin(), sizes.batch.end(), [](Batch batch) { return batch != Batch::kNone; });
    const bool baked = size.at(0) == input.shape[0] && input.batch_dim == 0 && !follows;
    if (input.batch_dim != 0 && !follows && std::count(size.begin(), size.end(), -1) == 0) {
      call.refuse("the batch size is written into the trace", "take it from the input's shape, or use -1");
    }
    if (baked && !call.importer().note_baked_batch()) {
      call.refuse("the batch size " + std::to_string(size[0]) + " is written into the trace",
                  "take it from the input's shape, or use -1");
    }
    translate_aten(call);
    if (baked) {
      call.emitted().call->batch_sizes.emplace_back(1, 0);
    }
    return;
  }
  if (size[0] != -1 && sizes.batch_at(0) != Batch::kExact && !call.importer().note_baked_batch()) {
    call.refuse("the batch size " + std::to_string(size[0]) + " is written into the trace", "use flatten(1)");
  }
  emit_flatten(call);
}

void translate_squeeze(Call& call) {
  const Activation input = call.activation("self");
  const int64_t dims = static_cast<int64_t>(input.shape.size());
  if (!call.has("dim")) {
    call.refuse("squeeze() would drop a batch of one too", "give the dimension");
  }
  std::set<int64_t> dropped;
  for (const int64_t dim : call.ints("dim")) {
    dropped.insert(dim < 0 ? dim + dims : dim);
  }
  std::vector<int64_t> shape;
  for (int64_t i = 0; i < dims; ++i) {
    if (dropped.count(i) == 0 || input.shape[i] != 1) {
      shape.push_back(input.shape[i]);
    }
  }
  if (dropped.count(input.batch_dim) != 0) {
    call.refuse("squeezing the batch is not possible", "keep the batch dimension");
  }
  if (product(input.shape, 2) != 1 || input.batch_dim != 0) {
    return translate_aten(call);
  }
  emit_flatten(call);
  call.forward(call.importer().activation(call.node().output(0)), std::move(shape));
}

void translate_identity(Call& call) {
  const Activation input = call.activation("self");
  call.forward(input, input.shape);
}

void translate_dropout(Call& call) {
  if (call.boolean("train")) {
    call.refuse("dropout is on", "call eval() before tracing");
  }
  if (call.importer().keeps_dropout()) {
    return translate_aten(call);
  }
  const Activation input = call.activation(call.has("input") ? "input" : "self");
  call.forward(input, input.shape);
}

void translate_to(Call& call) {
  const Activation input = call.activation("self");
  const auto type = call.node().output(0)->type()->cast<c10::TensorType>();
  if (type != nullptr && type->scalarType() && *type->scalarType() != at::kFloat) {
    call.refuse("expected float32, got a conversion to " + c10::str(*type->scalarType()),
                "convert outside the captured module");
  }
  call.forward(input, input.shape);
}

const std::unordered_map<std::string, Translator>& translators() {
  static const std::unordered_map<std::string, Translator> table{
      {"aten::_convolution", translate_convolution},
      {"aten::_convolution_mode", translate_convolution},
      {"aten::convolution", translate_convolution},
      {"aten::conv2d", translate_convolution},
      {"aten::linear", translate_linear},
      {"aten::addmm", translate_addmm},
      {"aten::matmul", translate_matmul},
      {"aten::mm", translate_matmul},
      {"aten::add", translate_add},
      {"aten::add_", translate_add},
      {"aten::mul", translate_mul},
      {"aten::mul_", translate_mul},
      {"aten::scaled_dot_product_attention", translate_attention},
      {"aten::cat", translate_cat},
      {"aten::concat", translate_cat},
      {"aten::stack", translate_stack},
      {"aten::chunk", translate_split},
      {"aten::split", translate_split},
      {"aten::split_with_sizes", translate_split},
      {"aten::unbind", translate_split},
      {"aten::glu", translate_glu},
      {"aten::rms_norm", translate_rms_norm},
      {"aten::batch_norm", translate_batch_norm},
      {"aten::relu", translate_relu},
      {"aten::relu_", translate_relu},
      {"aten::relu6", translate_relu6},
      {"aten::relu6_", translate_relu6},
      {"aten::hardtanh", translate_hardtanh},
      {"aten::hardtanh_", translate_hardtanh},
      {"aten::clamp", translate_clamp},
      {"aten::clamp_", translate_clamp},
      {"aten::clamp_min", translate_clamp},
      {"aten::clamp_min_", translate_clamp},
      {"torchslim::fake_quantize", translate_fake_quantize},
      {"torchslim::clamp_fake_quantize", translate_clamp_fake_quantize},
      {"torchslim::observe_fake_quantize", refuse_observer},
      {"aten::max_pool2d", translate_max_pool},
      {"aten::avg_pool2d", translate_avg_pool},
      {"aten::adaptive_avg_pool2d", translate_adaptive_avg_pool},
      {"aten::mean", translate_mean},
      {"aten::flatten", translate_flatten},
      {"aten::view", translate_view},
      {"aten::reshape", translate_view},
      {"aten::squeeze", translate_squeeze},
      {"aten::dropout", translate_dropout},
      {"aten::dropout_", translate_dropout},
      {"aten::feature_dropout", translate_dropout},
      {"aten::alpha_dropout", translate_dropout},
      {"aten::contiguous", translate_identity},
      {"aten::clone", translate_identity},
      {"aten::detach", translate_identity},
      {"aten::alias", translate_identity},
      {"aten::to", translate_to},
  };
  return table;
}

}  // namespace

Translator find_translator(const std::string& op) {
  const auto found = translators().find(op);
  if (found != translators().end()) {
    return found->second;
  }
  return aten_role(op.back() == '_' ? op.substr(0, op.size() - 1) : op) ? translate_aten : nullptr;
}

bool is_view(const std::string& op) {
  static const std::set<std::string> views{"aten::flatten",   "aten::view",          "aten::reshape",
                                           "aten::squeeze",   "aten::dropout",       "aten::contiguous",
                                           "aten::detach",    "aten::alias",         "aten::to",
                                           "aten::dropout_",  "aten::alpha_dropout", "aten::feature_dropout",
                                           "aten::permute",   "aten::transpose",     "aten::t",
                                           "aten::unsqueeze", "aten::slice",         "aten::select",
                                           "aten::narrow",    "aten::expand",        "aten::expand_as",
                                           "aten::chunk",     "aten::split",         "aten::split_with_sizes",
                                           "aten::unbind",    "aten::unflatten"};
  return views.count(op) != 0;
}

Constant fake_quantized_constant(Call& call, const torch::jit::Stack& results) {
  const bool is_weight = call.op() == "torchslim::fake_quantize_weight";
  const Constant& input = *call.constant(is_weight ? "weight" : "self");
  Constant quantized{results.at(0), input.grid ? "" : input.name};
  quantized.raw = input.value.toTensor();
  if (is_weight) {
    const at::Tensor& scale = results.at(1).toTensor();
    const int64_t largest = (int64_t{1} << (call.integer("bits") - 1)) - 1;
    quantized.grid = Grid{scale, at::zeros(scale.sizes(), at::kInt), -largest, largest, 0};
  } else {
    quantized.grid = grid_of(call);
    if (quantized.grid->axis && *quantized.grid->axis < 0) {
      *quantized.grid->axis += quantized.raw.dim();
    }
  }
  return quantized;
}

}  // namespace torchslim::graph::detail
