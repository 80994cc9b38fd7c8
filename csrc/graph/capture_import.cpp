// SPDX-License-Identifier: BSD-3-Clause
// Walks a traced TorchScript graph. Values that do not depend on the input are evaluated on the spot, with the
// operators themselves; the rest is translated by kind (capture_ops.cpp).
#include <ATen/ops/isfinite.h>
#include <c10/util/irange.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/lower_tuples.h>

#include <algorithm>
#include <sstream>

#include "graph/importer.h"

namespace torchslim::graph::detail {
namespace {

using torch::jit::Value;
using TracedNode = torch::jit::Node;

constexpr const char* kSupported =
    "conv2d, linear, batch_norm, relu, relu6, add, mul, cat, pools, reshapes, activations, norms, softmax, matmul";

std::string without_last(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

// "__module.features/__module.features.0" -> "features.0"
std::string layer_of_scope(const TracedNode& node) {
  const std::string scope = node.scopeName();
  const std::string last = scope.substr(scope.rfind('/') + 1);
  constexpr const char* kPrefix = "__module.";
  return last.rfind(kPrefix, 0) == 0 ? last.substr(std::string(kPrefix).size()) : "";
}

std::string source_line(const TracedNode& node) {
  const auto place = node.sourceRange().file_line_col();
  if (!place) {
    return "";
  }
  return ", " + std::get<0>(*place) + ":" + std::to_string(std::get<1>(*place));
}

// These change what Python or C++ does next, so their result matters even if no node reads it.
bool leaves_the_graph(const std::string& op) {
  return op == "aten::item" || op == "aten::_local_scalar_dense" || op == "aten::is_nonzero" || op == "aten::equal";
}

bool reads_shape(const std::string& op) {
  return op == "aten::size" || op == "aten::numel" || op == "aten::dim" || op == "aten::len";
}

bool is_same_tensor(const c10::IValue& result, const Constant& input) {
  if (!result.isTensor() || !input.value.isTensor()) {
    return false;
  }
  const at::Tensor& left = result.toTensor();
  const at::Tensor& right = input.value.toTensor();
  return left.is_alias_of(right) && left.scalar_type() == right.scalar_type() && left.sizes() == right.sizes() &&
         left.strides() == right.strides() && left.storage_offset() == right.storage_offset();
}

Batch combined(const Constant& constant) {
  for (const Batch batch : constant.batch) {
    if (batch != Batch::kNone) {
      return Batch::kMixed;
    }
  }
  return Batch::kNone;
}

}  // namespace

void check_parameter(const NamedTensor& tensor, const std::string& fallback) {
  const std::string name = tensor.name.empty() ? fallback : "`" + tensor.name + "`";
  TORCH_CHECK_TYPE(tensor.value.scalar_type() == at::kFloat,
                   "torchslim::graph::capture: expected float32 in parameter ", name, ", got ",
                   tensor.value.scalar_type(), "; convert the model with float()");
  TORCH_CHECK_VALUE(at::isfinite(tensor.value.detach()).all().item<bool>(), "torchslim::graph::capture: parameter ",
                    name, " holds NaN or Inf; capture a model whose training has not diverged");
}

void Call::refuse(const std::string& what, const std::string& remedy) const {
  const std::string layer_name = layer();
  TORCH_CHECK_VALUE(false, "torchslim::graph::capture: ", op(), " in ",
                    layer_name.empty() ? "the top module" : "layer `" + layer_name + "`", source_line(node_), ": ",
                    what, "; ", remedy);
}

std::string Call::layer() const {
  for (const Value* input : node_.inputs()) {
    const auto found = importer_.constants_.find(input);
    if (found != importer_.constants_.end() && found->second.value.isTensor() && !found->second.name.empty()) {
      return without_last(found->second.name);
    }
  }
  return layer_of_scope(node_);
}

size_t Call::position(const char* argument) const {
  const auto index = node_.schema().argumentIndexWithName(argument);
  TORCH_INTERNAL_ASSERT(index, op(), " has no argument ", argument);
  return static_cast<size_t>(*index);
}

bool Call::has(const char* argument) const { return node_.schema().argumentIndexWithName(argument).has_value(); }

bool Call::is_none(const char* argument) const {
  const Constant* found = constant(argument);
  return found != nullptr && found->value.isNone();
}

Value* Call::value(const char* argument) const { return node_.input(position(argument)); }

const Constant* Call::constant(const char* argument) const { return importer_.constant(value(argument)); }

const Activation& Call::activation(const char* argument) const {
  const auto found = importer_.activations_.find(value(argument));
  if (found == importer_.activations_.end()) {
    refuse(std::string("expected argument `") + argument + "` to depend on the input, got a constant or parameter",
           "compute it outside the captured module");
  }
  return found->second;
}

std::vector<Activation> Call::activations(const char* argument) const {
  const auto found = importer_.lists_.find(value(argument));
  if (found == importer_.lists_.end() || found->second.empty()) {
    refuse(std::string("expected `") + argument + "` to be a list of tensors that all depend on the input",
           "compute constants outside forward");
  }
  return found->second;
}

std::vector<int64_t> Call::ints(const char* argument) const {
  const Constant* found = constant(argument);
  if (found == nullptr) {
    refuse(std::string("argument `") + argument + "` depends on the values of the input", "use fixed numbers");
  }
  return found->value.isInt() ? std::vector<int64_t>{found->value.toInt()} : found->value.toIntVector();
}

std::array<int64_t, 2> Call::pair(const char* argument) const {
  const auto numbers = ints(argument);
  if (numbers.size() == 1) {
    return {numbers[0], numbers[0]};
  }
  if (numbers.size() != 2) {
    refuse(std::string("expected 2 numbers in `") + argument + "`, got " + std::to_string(numbers.size()),
           "only images (N, C, H, W) are supported");
  }
  return {numbers[0], numbers[1]};
}

int64_t Call::integer(const char* argument) const { return ints(argument).at(0); }

double Call::number(const char* argument) const {
  const Constant* found = constant(argument);
  if (found == nullptr || !found->value.isScalar()) {
    refuse(std::string("expected argument `") + argument + "` to be a number", "use fixed numbers");
  }
  return found->value.toScalar().toDouble();
}

bool Call::boolean(const char* argument) const {
  const Constant* found = constant(argument);
  if (found == nullptr) {
    refuse(std::string("argument `") + argument + "` depends on the values of the input", "use a fixed value");
  }
  return found->value.isBool() ? found->value.toBool() : found->value.toInt() != 0;
}

NamedTensor Call::parameter(const char* argument) const {
  const Constant* found = constant(argument);
  if (found == nullptr || !found->value.isTensor()) {
    refuse(std::string("expected argument `") + argument + "` to be a parameter, got a value that depends on the input",
           "make it a parameter or buffer of the module");
  }
  NamedTensor tensor{found->name, found->grid ? found->raw : found->value.toTensor()};
  check_parameter(tensor, std::string("(argument `") + argument + "` of " + op() + ")");
  return tensor;
}

NamedTensor Call::optional_parameter(const char* argument) const {
  return is_none(argument) ? NamedTensor{} : parameter(argument);
}

Activation Call::image(const char* argument, size_t dims) {
  const Activation& input = activation(argument);
  if (input.shape.size() != dims) {
    refuse("expected an input of " + std::to_string(dims) + " dimensions, got " + std::to_string(input.shape.size()),
           dims == 4 ? "only images (N, C, H, W) are supported; keep the dimensions of pooling"
                     : "flatten it with flatten(1) first");
  }
  if (input.batch_dim != 0) {
    refuse("the batch is not the first dimension of its input", "transpose it back first");
  }
  return materialised(*this, input);
}

Activation& Call::emit(OpKind kind, const std::vector<const Activation*>& inputs, std::vector<int64_t> shape) {
  Node node;
  node.kind = kind;
  node.layer = layer();
  for (const Activation* input : inputs) {
    node.inputs.push_back(input->node);
  }
  node.shape = shape;
  Graph& graph = importer_.graph_;
  graph.nodes.push_back(std::move(node));
  const auto widest = std::max_element(
      inputs.begin(), inputs.end(),
      [](const Activation* left, const Activation* right) { return left->shape.size() < right->shape.size(); });
  const int64_t batch_dim = (*widest)->batch_dim;
  Activation& result = importer_.activations_[node_.output(0)];
  result = {static_cast<int64_t>(graph.nodes.size()) - 1, std::move(shape), batch_dim};
  return result;
}

Activation& Call::set_batch_dim(int64_t dim) {
  Activation& result = importer_.activations_.at(node_.output(0));
  result.batch_dim = dim;
  return result;
}

Node& Call::emitted() { return importer_.graph_.nodes.back(); }

void Call::forward(const Activation& activation, std::vector<int64_t> shape) {
  const int64_t node = activation.node, batch_dim = activation.batch_dim;
  importer_.activations_[node_.output(0)] = {node, std::move(shape), batch_dim};
}

Importer::Importer(const torch::jit::Module& module, const at::Tensor& example, bool accept_baked_batch,
                   CaptureOptions options)
    : module_(module), example_(example), accept_baked_batch_(accept_baked_batch), options_(std::move(options)) {
  const auto forward = module_.find_method("forward");
  TORCH_CHECK_VALUE(forward,
                    "torchslim::graph::capture: expected a traced module, got one without "
                    "`forward`; trace it first");
  traced_ = forward->graph()->copy();
  torch::jit::Inline(*traced_);
  torch::jit::LowerSimpleTuples(traced_);  // what a layer returns and its caller takes apart
}

Graph Importer::run() {
  import_inputs();
  find_live();
  for (TracedNode* node : traced_->nodes()) {
    import_node(*node);
  }
  return finish();
}

void Importer::import_inputs() {
  const auto inputs = traced_->inputs();
  TORCH_CHECK_VALUE(inputs.size() == 2, "torchslim::graph::capture: expected one input tensor, got ", inputs.size() - 1,
                    "; wrap the module in one whose forward takes one image batch");
  TORCH_CHECK_VALUE(traced_->outputs().size() == 1,
                    "torchslim::graph::capture: expected one output, "
                    "got ",
                    traced_->outputs().size());
  constants_[inputs[0]] = {module_._ivalue(), ""};
  Node input;
  input.shape = example_.sizes().vec();
  activations_[inputs[1]] = {0, input.shape};
  memory_[inputs[1]] = 0;
  graph_.nodes.push_back(std::move(input));
}

// What the output needs, and every operation in place: a later reader sees what it changed.
void Importer::find_live() {
  std::vector<const TracedNode*> pending{traced_->outputs()[0]->node()};
  for (TracedNode* node : traced_->nodes()) {
    const auto* schema = node->maybeSchema();
    if (schema != nullptr && schema->is_mutable()) {
      pending.push_back(node);
    }
  }
  while (!pending.empty()) {
    const TracedNode* node = pending.back();
    pending.pop_back();
    if (live_.insert(node).second) {
      for (const Value* input : node->inputs()) {
        pending.push_back(input->node());
      }
    }
  }
}

void Importer::import_node(TracedNode& node) {
  const std::string op = node.kind().toQualString();
  Call call(*this, node);
  if (!node.blocks().empty()) {
    call.refuse("control flow depends on values at run time",
                "trace the module instead of scripting it, and keep `if` and loops out of forward");
  }
  if (op == "prim::TupleConstruct" || op == "prim::DictConstruct") {
    call.refuse("forward returns several values, expected one tensor",
                "wrap the module in one that returns a single tensor");
  }
  if (op == "prim::Constant") {
    constants_[node.output()] = {*torch::jit::toIValue(node.output()), ""};
  } else if (op == "prim::GetAttr") {
    import_attribute(node);
  } else if (leaves_the_graph(op) && !is_constant(node)) {
    call.refuse("a value computed from the input steers the program, which a trace cannot hold",
                "keep decisions on values out of forward");
  } else if (live_.count(&node) == 0) {
    return;
  } else if (op == "prim::ListConstruct") {
    import_list(node);
  } else if (op == "prim::ListUnpack") {
    import_unpack(node);
  } else if (reads_shape(op) && !is_constant(node)) {
    import_shape(node);
  } else if (is_constant(node)) {
    evaluate(node);
  } else {
    translate(node);
  }
}

void Importer::import_attribute(TracedNode& node) {
  const Constant& owner = constants_.at(node.input());
  const std::string attribute = node.s(c10::attr::name);
  const std::string name = owner.name.empty() ? attribute : owner.name + "." + attribute;
  constants_[node.output()] = {owner.value.toObject()->getAttr(attribute), name};
}

void Importer::import_list(TracedNode& node) {
  if (!is_constant(node)) {
    std::vector<Activation> elements;
    for (const Value* input : node.inputs()) {
      const auto found = activations_.find(input);
      if (found == activations_.end()) {
        return;  // a constant among them, which cat takes
      }
      elements.push_back(found->second);
    }
    lists_[node.output()] = std::move(elements);
    return;
  }
  c10::impl::GenericList list(node.output()->type()->expectRef<c10::ListType>().getElementType());
  Constant result;
  for (const Value* input : node.inputs()) {
    const Constant& element = constants_.at(input);
    list.push_back(element.value);
    result.batch.push_back(element.batch_at(0));
    result.from_shape = result.from_shape || element.from_shape;
  }
  result.value = std::move(list);
  constants_[node.output()] = std::move(result);
}

void Importer::import_unpack(TracedNode& node) {
  if (const auto list = lists_.find(node.input()); list != lists_.end()) {
    for (size_t i = 0; i < node.outputs().size(); ++i) {
      activations_[node.output(i)] = list->second.at(i);
      memory_[node.output(i)] = memory_.at(node.input());
    }
    return;
  }
  const auto found = constants_.find(node.input());
  if (found == constants_.end()) {
    Call(*this, node).refuse("a list of values that depend on the input", "return the tensors one by one");
  }
  const Constant list = found->second;
  const auto elements = list.value.toListRef();
  for (size_t i = 0; i < node.outputs().size(); ++i) {
    constants_[node.output(i)] = {elements[i], "", {list.batch_at(i)}, list.from_shape};
  }
}

void Importer::import_shape(TracedNode& node) {
  Call call(*this, node);
  const std::string op = call.op();
  const Activation& read = activations_.at(node.input(0));
  const std::vector<int64_t>& shape = read.shape;
  // Where images and parts of them lie in one dimension, its size is a multiple of the batch's.
  const auto batch_of = [&](int64_t dim) {
    return dim != read.batch_dim ? Batch::kNone : shape[dim] == batch() ? Batch::kExact : Batch::kMixed;
  };
  Constant result;
  result.from_shape = true;
  if (op == "aten::numel") {
    result.value = c10::multiply_integers(shape);
    result.batch = {Batch::kMixed};
  } else if (op != "aten::size") {
    result.value = static_cast<int64_t>(op == "aten::dim" ? shape.size() : shape[0]);
    result.batch = {op == "aten::dim" ? Batch::kNone : batch_of(0)};
  } else if (node.inputs().size() == 1) {
    result.value = c10::List<int64_t>(c10::ArrayRef<int64_t>(shape));
    for (const auto i : c10::irange(static_cast<int64_t>(shape.size()))) {
      result.batch.push_back(batch_of(i));
    }
  } else {
    const int64_t dims = static_cast<int64_t>(shape.size());
    const int64_t dim = call.integer("dim");
    const int64_t index = dim < 0 ? dim + dims : dim;
    result.value = shape.at(index);
    result.batch = {batch_of(index)};
  }
  constants_[node.output()] = std::move(result);
}

const Constant* Importer::constant(const Value* value) const {
  const auto found = constants_.find(value);
  return found == constants_.end() ? nullptr : &found->second;
}

Node* Importer::producer(const Value* value) {
  const auto found = activations_.find(value);
  return found == activations_.end() ? nullptr : &graph_.nodes[found->second.node];
}

bool Importer::is_constant(TracedNode& node) const {
  for (const Value* input : node.inputs()) {
    if (constants_.count(input) == 0) {
      return false;
    }
  }
  return true;
}

void Importer::evaluate(TracedNode& node) {
  Call call(*this, node);
  const std::string op = call.op();
  const auto* schema = node.maybeSchema();
  // Python counts features by `n *= size` on tensors of its own.
  if (schema != nullptr && schema->is_mutable() && !constants_.at(node.input(0)).from_shape) {
    const Constant& changed = constants_.at(node.input(0));
    call.refuse("the forward changes buffer or parameter `" + changed.name + "`", "call eval() before tracing");
  }
  if (node.isNondeterministic()) {
    call.refuse("its result is random", "call eval() before tracing, and keep noise out of forward");
  }
  torch::jit::Stack stack;
  Constant result;
  for (const Value* input : node.inputs()) {
    const Constant& constant = constants_.at(input);
    stack.push_back(constant.value);
    if (combined(constant) != Batch::kNone) {
      result.batch = {Batch::kMixed};
    }
    result.from_shape = result.from_shape || constant.from_shape;
  }
  if (op == "prim::NumToTensor" || op == "aten::Int" || op == "aten::ScalarImplicit") {
    result.batch = constants_.at(node.input(0)).batch;
  }
  node.getOperation()(stack);
  if (op == "torchslim::fake_quantize" || op == "torchslim::fake_quantize_weight") {
    result = fake_quantized_constant(call, stack);
  } else if (!node.inputs().empty() && is_same_tensor(stack.at(0), constants_.at(node.input(0)))) {
    const std::vector<Batch> batch = std::move(result.batch);
    result = constants_.at(node.input(0));  // detach, contiguous, ...: still that parameter
    if (!batch.empty()) {
      result.batch = batch;  // expanded to a batch of one
    }
  } else {
    result.value = stack.at(0);
  }
  for (size_t i = 1; i < node.outputs().size(); ++i) {
    constants_[node.output(i)] = {stack.at(i), "", result.batch, result.from_shape};
  }
  constants_[node.output(0)] = std::move(result);
}

// A view of changed memory, read later: our nodes have values, not memory, so it would read the old value.
void Importer::check_stale_aliases(Call& call, Value* changed) {
  const int64_t memory = memory_.at(changed);
  for (const auto& [value, number] : memory_) {
    if (number != memory || value == changed) {
      continue;
    }
    for (const auto& use : value->uses()) {
      const bool later = use.user == traced_->return_node() || use.user->isAfter(&call.node());
      if (later && (live_.count(use.user) != 0 || use.user == traced_->return_node())) {
        call.refuse("it changes in place what another tensor that is read later shares memory with",
                    "use the form that is not in place");
      }
    }
  }
}

void Importer::translate(TracedNode& node) {
  Call call(*this, node);
  const std::string op = call.op();
  const Translator translator = find_translator(op);
  if (translator == nullptr) {
    call.refuse("the operation is not supported", std::string("replace it by supported ones (") + kSupported +
                                                      ") or leave it outside the captured module");
  }
  Value* input = node.input(0);
  if (memory_.count(input) != 0 && (call.in_place() || is_view(op))) {
    if (call.in_place()) {
      check_stale_aliases(call, input);
    }
    memory_[node.output(0)] = memory_.at(input);
  } else {
    memory_[node.output(0)] = static_cast<int64_t>(memory_.size());
  }
  translator(call);
  if (call.in_place()) {
    activations_[input] = activations_.at(node.output(0));
  }
}

// Keeps what the output reads, in order.
Graph Importer::finish() {
  const auto found = activations_.find(traced_->outputs()[0]);
  TORCH_CHECK_VALUE(found != activations_.end(),
                    "torchslim::graph::capture: expected forward to return one tensor computed from "
                    "its input, got ",
                    traced_->outputs()[0]->type()->str(), "; wrap the module in one that returns a single tensor");
  const Activation returned = found->second;
  Call last(*this, *traced_->outputs()[0]->node());
  TORCH_CHECK_VALUE(returned.batch_dim == 0,
                    "torchslim::graph::capture: the batch is not the first dimension of the result; transpose it back");
  const Activation output = materialised(last, returned);
  std::vector<bool> needed(graph_.nodes.size(), false);
  needed[output.node] = true;
  for (size_t i = graph_.nodes.size(); i-- > 0;) {
    for (const int64_t input : graph_.nodes[i].inputs) {
      needed[input] = needed[input] || needed[i];
    }
  }
  TORCH_CHECK_VALUE(needed[0], "torchslim::graph::capture: the output does not depend on the input");
  Graph graph;
  std::vector<int64_t> moved(graph_.nodes.size(), -1);
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (!needed[i]) {
      continue;
    }
    Node node = std::move(graph_.nodes[i]);
    for (int64_t& input : node.inputs) {
      input = moved[input];
    }
    moved[i] = static_cast<int64_t>(graph.nodes.size());
    graph.nodes.push_back(std::move(node));
  }
  return graph;
}

}  // namespace torchslim::graph::detail
