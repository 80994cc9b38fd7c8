// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torchslim/api.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace torchslim::graph {

/// The closed list of what a graph can hold. Anything else is refused at capture, by name and
/// layer.
enum class OpKind {
  kInput,        // the one image batch that goes in
  kConv2d,       // any groups, stride, padding, dilation
  kLinear,       // over the last dimension
  kBatchNorm2d,  // with running statistics, over the channels (dimension 1) of any number of dimensions
  kRelu,
  kRelu6,
  kAdd,  // two inputs of one shape
  kMaxPool2d,
  kAvgPool2d,
  kGlobalAvgPool,  // (N, C, H, W) -> (N, C, 1, 1)
  kFlatten,        // (N, ...) -> (N, features)
  kFakeQuantize,   // onto `Node::grid`
  kMul,            // two inputs, broadcast
  kConcat,         // any number of inputs, along `Node::dim`
  kAten,           // one of the fixed list of `aten_role`, as `Node::call`
  kConv1d,         // as kConv2d, over (N, C, L)
  kConvTranspose1d,
  kConvTranspose2d,
};

/// Whether `kind` is a convolution of any kind.
TORCHSLIM_API bool is_convolution(OpKind kind);

/// Whether `kind` is a transposed convolution.
TORCHSLIM_API bool is_transposed(OpKind kind);

/// Returns the name of `kind`, such as "conv2d".
TORCHSLIM_API const char* to_string(OpKind kind);

/// What an operator of ATen's that has no kind of its own does with its inputs.
enum class AtenRole {
  kCopies,       // moves elements: reshape, permute, slice, ...; may fill in zeros
  kElementwise,  // a function of each element of one input: sigmoid, hardswish, ...
  kComputes,     // anything else: layer_norm, softmax, matmul, ...
};

/// A call of an operator of ATen's by its schema.
struct TORCHSLIM_API AtenCall {
  std::string op;        // "aten::sigmoid"; never the form in place
  std::string overload;  // "" or "int", "dim", ...
  AtenRole role = AtenRole::kComputes;
  std::vector<c10::IValue> arguments;  // all of the schema's; None where an input goes
  std::vector<size_t> slots;           // input i of the node is argument slots[i]
  /// Numbers that are the batch size: argument, and the element of its list (0 if it is no list).
  std::vector<std::pair<size_t, size_t>> batch_sizes;
};

/// Returns what operator `op` ("aten::sigmoid") does, or nothing if graphs cannot hold it.
TORCHSLIM_API std::optional<AtenRole> aten_role(const std::string& op);

/// The grid {scale·(q − zero_point) : quant_min ≤ q ≤ quant_max}, in the int8 convention.
struct TORCHSLIM_API Grid {
  at::Tensor scale;       // float32; 0-dim per tensor, (channels) per channel
  at::Tensor zero_point;  // int32, same shape
  int64_t quant_min = -128;
  int64_t quant_max = 127;
  std::optional<int64_t> axis;  // the channel dimension, or empty: per tensor
};

/// What convolutions and pools need; heights first. In one dimension, the height is 1.
struct TORCHSLIM_API Window {
  std::array<int64_t, 2> kernel{1, 1};
  std::array<int64_t, 2> stride{1, 1};
  std::array<int64_t, 2> padding{0, 0};
  std::array<int64_t, 2> dilation{1, 1};
  int64_t groups = 1;                           // conv only
  bool ceil_mode = false;                       // pools only
  bool count_include_pad = true;                // average pool only
  std::array<int64_t, 2> output_padding{0, 0};  // transposed convolutions only
};

/// A tensor of the model, under its name there ("features.0.conv.weight"; empty if it has none).
struct TORCHSLIM_API NamedTensor {
  std::string name;
  at::Tensor value;
  bool defined() const { return value.defined(); }
};

/// One operation with one result. Fields that its kind does not use keep their defaults.
struct TORCHSLIM_API Node {
  OpKind kind = OpKind::kInput;
  std::string layer;            // dotted name of the module that ran it ("features.0.conv"; empty at the top)
  std::vector<int64_t> inputs;  // indices of earlier nodes
  std::vector<int64_t> shape;   // of the result, for the example input
  Window window;                // convolutions, pools
  /// Convolutions (O, I/groups, kh, kw), or without kh in one dimension; transposed ones (I, O/groups, kh, kw); linear
  /// (O, I); batch_norm2d gamma (C).
  NamedTensor weight;
  NamedTensor bias;          // convolutions, linear (O), batch_norm2d beta (C); may be undefined
  NamedTensor running_mean;  // batch_norm2d (C)
  NamedTensor running_var;   // batch_norm2d (C)
  double eps = 1e-5;         // batch_norm2d
  double momentum = 0.1;     // batch_norm2d: of the running statistics, in training
  /// Convolutions, linear: the grid that the weight is fake-quantised to; of a transposed convolution, that of the weight
  /// with output channels first (`weight_by_outputs`).
  std::optional<Grid> weight_grid;
  std::optional<Grid> grid;      // fake_quantize
  int64_t dim = 0;               // concat
  std::optional<AtenCall> call;  // aten
};

/// A network as a list of operations in the order they run: node 0 is the input, the last node is
/// the result.
struct TORCHSLIM_API Graph {
  std::vector<Node> nodes;

  /// Returns the nodes that read node `index`, in order.
  std::vector<int64_t> users(int64_t index) const;
};

/// Returns the graph as a readable table: number, kind, layer, inputs, shape.
TORCHSLIM_API std::string to_string(const Graph& graph);

/// Returns the graph as JSON: kinds, layers, inputs, shapes, attributes and tensor names; no tensor
/// values.
TORCHSLIM_API std::string to_json(const Graph& graph);

}  // namespace torchslim::graph
