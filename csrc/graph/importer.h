// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torchslim/graph/capture.h>
#include <torchslim/graph/graph.h>

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace torchslim::graph::detail {

/// How a number depends on the batch size of the input.
enum class Batch {
  kNone,   // not at all
  kExact,  // it is the batch size
  kMixed,  // it is computed from the batch size
};

/// A value of the traced graph that is known without the input: a number, a parameter, a module, ...
struct Constant {
  c10::IValue value;
  std::string name;            // dotted name of a parameter, buffer or module; else empty
  std::vector<Batch> batch{};  // of a number, or of each element of a list; empty: kNone
  bool from_shape = false;     // read off the shape of an activation
  at::Tensor raw{};            // what was fake-quantised, if `grid`
  std::optional<Grid> grid{};

  Batch batch_at(size_t i) const { return i < batch.size() ? batch[i] : Batch::kNone; }
};

/// A value of the traced graph that depends on the input: the result of a node of ours.
struct Activation {
  int64_t node = 0;
  std::vector<int64_t> shape;  // as traced: after squeeze it differs from the node's
  int64_t batch_dim = 0;       // where the images of the batch lie
};

class Importer;

/// One operation of the traced graph while it is translated: arguments by their name in the schema.
class Call {
 public:
  Call(Importer& importer, torch::jit::Node& node) : importer_(importer), node_(node) {}

  /// Ends the capture: `what` is wrong with this operation and `remedy` is what to do.
  [[noreturn]] void refuse(const std::string& what, const std::string& remedy) const;

  std::string op() const { return node_.kind().toQualString(); }
  std::string layer() const;
  bool in_place() const { return op().back() == '_'; }

  bool has(const char* argument) const;
  bool is_none(const char* argument) const;
  torch::jit::Value* value(const char* argument) const;
  const Constant* constant(const char* argument) const;  // null for an activation
  const Activation& activation(const char* argument) const;
  std::vector<Activation> activations(const char* argument) const;  // a list of them
  std::vector<int64_t> ints(const char* argument) const;
  std::array<int64_t, 2> pair(const char* argument) const;  // (height, width); one number stands for both
  int64_t integer(const char* argument) const;
  double number(const char* argument) const;
  bool boolean(const char* argument) const;
  NamedTensor parameter(const char* argument) const;  // checked: float32 and finite
  NamedTensor optional_parameter(const char* argument) const;

  /// The activation of an argument, which must have `dims` dimensions, the batch first, with a node of its own.
  Activation image(const char* argument, size_t dims);

  /// Adds a node of ours that computes this operation's result.
  Activation& emit(OpKind kind, const std::vector<const Activation*>& inputs, std::vector<int64_t> shape);
  Node& emitted();

  /// Says where the batch lies in what was emitted.
  Activation& set_batch_dim(int64_t dim);

  /// This operation's result is `activation` as it is.
  void forward(const Activation& activation, std::vector<int64_t> shape);

  Importer& importer() const { return importer_; }
  torch::jit::Node& node() const { return node_; }

 private:
  size_t position(const char* argument) const;

  Importer& importer_;
  torch::jit::Node& node_;
};

/// Checks that `tensor` is float32 and finite; the message names the parameter, or `fallback`.
void check_parameter(const NamedTensor& tensor, const std::string& fallback);

/// Translates the traced graph, one node after the other, into ours.
class Importer {
 public:
  Importer(const torch::jit::Module& module, const at::Tensor& example, bool accept_baked_batch,
           CaptureOptions options = {});

  Graph run();

  /// Whether a batch size was found as a number in the trace (and accepted).
  bool baked_batch() const { return baked_batch_; }

  /// Notes that a batch size stands as a number in the trace; returns whether that is acceptable.
  bool note_baked_batch() {
    baked_batch_ = true;
    return accept_baked_batch_;
  }

  bool keeps_dropout() const { return options_.keep_dropout(); }

  /// The node of ours that `value` is the result of; null if `value` does not depend on the input.
  Node* producer(const torch::jit::Value* value);
  Node* producer(const Activation& activation) { return &graph_.nodes[activation.node]; }

  const Constant* constant(const torch::jit::Value* value) const;  // null if there is none
  const Activation& activation(const torch::jit::Value* value) const { return activations_.at(value); }
  bool is_activation(const torch::jit::Value* value) const { return activations_.count(value) != 0; }
  /// Says what the list `value` holds.
  void set_list(const torch::jit::Value* value, std::vector<Activation> list) { lists_[value] = std::move(list); }
  int64_t batch() const { return example_.size(0); }
  int64_t last_node() const { return static_cast<int64_t>(graph_.nodes.size()) - 1; }

 private:
  friend class Call;

  void import_inputs();
  void import_node(torch::jit::Node& node);
  void import_attribute(torch::jit::Node& node);
  void import_list(torch::jit::Node& node);
  void import_unpack(torch::jit::Node& node);
  void import_shape(torch::jit::Node& node);
  void evaluate(torch::jit::Node& node);
  void translate(torch::jit::Node& node);
  bool is_constant(torch::jit::Node& node) const;
  void check_stale_aliases(Call& call, torch::jit::Value* changed);
  void find_live();
  Graph finish();

  torch::jit::Module module_;
  at::Tensor example_;
  std::shared_ptr<torch::jit::Graph> traced_;
  bool accept_baked_batch_;
  CaptureOptions options_;
  bool baked_batch_ = false;
  std::unordered_set<const torch::jit::Node*> live_;
  std::unordered_map<const torch::jit::Value*, Constant> constants_;
  std::unordered_map<const torch::jit::Value*, Activation> activations_;
  std::unordered_map<const torch::jit::Value*, std::vector<Activation>> lists_;  // lists of activations
  std::unordered_map<const torch::jit::Value*, int64_t> memory_;                 // values of one number share storage
  Graph graph_;
};

using Translator = void (*)(Call&);

/// `input`, with a node of its own where it was squeezed only in part.
Activation materialised(Call& call, const Activation& input);

/// `input` with zeros before and behind it along `dim`.
Activation padded(Call& call, const Activation& input, int64_t dim, int64_t before, int64_t after);

/// The shape of a result as the trace has it.
std::vector<int64_t> traced_shape(const Call& call, size_t output);

/// Translate what has no kind of its own (`aten_role`), products, operations with lists of tensors, and convolutions.
void translate_aten(Call& call);
void translate_mul(Call& call);
void translate_attention(Call& call);
void translate_cat(Call& call);
void translate_stack(Call& call);
void translate_split(Call& call);
void translate_glu(Call& call);
void translate_rms_norm(Call& call);
void translate_convolution(Call& call);

/// Returns how to translate operation `op` ("aten::relu"), or null if it is outside the list.
Translator find_translator(const std::string& op);

/// Whether the result of operation `op` shares memory with its input.
bool is_view(const std::string& op);

/// Handles a fake-quantising operation on a parameter, whose `results` are given: keeps name, raw tensor and grid.
Constant fake_quantized_constant(Call& call, const torch::jit::Stack& results);

}  // namespace torchslim::graph::detail
