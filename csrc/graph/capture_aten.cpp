// SPDX-License-Identifier: BSD-3-Clause
// Operators that have no kind of their own, and lists of tensors.
#include <c10/util/irange.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "graph/importer.h"

namespace torchslim::graph::detail {
namespace {

std::string without_underscore(const std::string& op) { return op.back() == '_' ? op.substr(0, op.size() - 1) : op; }

bool is_arithmetic(const std::string& op) {
  static const std::set<std::string> ops{"aten::add", "aten::sub", "aten::rsub", "aten::mul", "aten::div", "aten::pow"};
  return ops.count(op) != 0;
}

// Whether what stands beside the one input is numbers, so that an arithmetic operator is a function of each element.
bool has_only_numbers(const AtenCall& aten) {
  return std::all_of(aten.arguments.begin(), aten.arguments.end(), [](const c10::IValue& argument) {
    return !argument.isTensor() || argument.toTensor().dim() == 0;
  });
}

// Whether an argument of `call` is a padding value other than 0.
bool fills_in_more_than_zeros(const Call& call) {
  return call.has("value") && !call.is_none("value") && call.number("value") != 0;
}

// The images of a batch must stay independent of each other.
void check_dims(const Call& call, const std::string& op, size_t dims) {
  static const std::set<std::string> mixing{"aten::sum",    "aten::mean",   "aten::softmax", "aten::log_softmax",
                                            "aten::amax",   "aten::max",    "aten::slice",   "aten::index_select",
                                            "aten::select", "aten::flip",   "aten::roll",    "aten::narrow",
                                            "aten::argmax", "aten::cumsum", "aten::cat",     "aten::stack"};
  if (mixing.count(op) == 0) {
    return;
  }
  for (const char* argument : {"dim", "dims"}) {
    if (!call.has(argument) || call.is_none(argument)) {
      continue;
    }
    for (const int64_t dim : call.ints(argument)) {
      if (dim == 0 || dim == -static_cast<int64_t>(dims)) {
        call.refuse("it works across the images of the batch (dimension 0)", "keep the batch dimension as it is");
      }
    }
    return;
  }
  call.refuse("it works across the images of the batch", "give it the dimensions, without the batch");
}

AtenRole role_of(const Call& call, const AtenCall& aten) {
  const AtenRole role = *aten_role(aten.op);
  if (aten.slots.size() != 1) {
    return AtenRole::kComputes;
  }
  if (role == AtenRole::kCopies && fills_in_more_than_zeros(call)) {
    return AtenRole::kComputes;
  }
  if ((role == AtenRole::kElementwise || is_arithmetic(aten.op)) && has_only_numbers(aten)) {
    return AtenRole::kElementwise;
  }
  return role == AtenRole::kElementwise ? AtenRole::kComputes : role;
}

// Notes which numbers of an argument follow the batch size.
void add_batch_sizes(Call& call, const Constant& constant, size_t argument, AtenCall& aten) {
  const size_t numbers = constant.value.isList() ? constant.value.toListRef().size() : 1;
  for (size_t i = 0; i < numbers && i < constant.batch.size(); ++i) {
    if (constant.batch_at(i) == Batch::kExact) {
      aten.batch_sizes.emplace_back(argument, i);
    } else if (constant.batch_at(i) == Batch::kMixed) {
      call.refuse("a number is computed from the batch size", "use -1, or reshape with the batch as a dimension");
    }
  }
}

Activation emit_call(Call& call, const Activation& input, AtenCall aten, std::vector<int64_t> shape) {
  const Activation result = call.emit(OpKind::kAten, {&input}, std::move(shape));
  call.emitted().call = std::move(aten);
  return result;
}

AtenCall copying(const char* op, const char* overload, std::vector<c10::IValue> arguments) {
  return {op, overload, AtenRole::kCopies, std::move(arguments), {0}, {}};
}

}  // namespace

Activation materialised(Call& call, const Activation& input) {
  if (input.shape == call.importer().producer(input)->shape) {
    return input;
  }
  AtenCall reshape = copying("aten::reshape", "", {c10::IValue(), c10::IValue(input.shape)});
  reshape.batch_sizes.emplace_back(1, 0);
  return emit_call(call, input, std::move(reshape), input.shape);
}

std::vector<int64_t> traced_shape(const Call& call, size_t output) {
  const auto type = call.node().output(output)->type()->cast<c10::TensorType>();
  const auto sizes = type == nullptr ? std::nullopt : type->sizes().concrete_sizes();
  if (!sizes) {
    call.refuse("the trace does not say the shape of its result", "trace the module with torch.jit.trace");
  }
  return *sizes;
}

// x[:, 1:] slices the batch too, from end to end.
bool slices_nothing(const Call& call) {
  return call.op() == "aten::slice" && call.integer("dim") == 0 &&
         (call.is_none("start") || call.integer("start") == 0) &&
         (call.is_none("end") || call.integer("end") == std::numeric_limits<int64_t>::max()) &&
         call.integer("step") == 1;
}

void translate_aten(Call& call) {
  if (slices_nothing(call)) {
    const Activation input = call.activation("self");
    return call.forward(input, input.shape);
  }
  AtenCall aten;
  aten.op = without_underscore(call.op());
  if (aten.op == "aten::view") {
    aten.op = "aten::reshape";  // contiguous() leaves no node, so memory may lie otherwise than it did
  }
  aten.overload = call.node().schema().overload_name();
  std::vector<Activation> inputs;
  for (const auto i : c10::irange(call.node().inputs().size())) {
    const torch::jit::Value* value = call.node().input(i);
    if (const Constant* constant = call.importer().constant(value)) {
      aten.arguments.push_back(constant->value);
      add_batch_sizes(call, *constant, i, aten);
    } else if (call.importer().is_activation(value)) {
      aten.slots.push_back(i);
      aten.arguments.emplace_back();
      inputs.push_back(materialised(call, call.importer().activation(value)));
    } else {
      call.refuse("it takes a list of tensors that depend on the input", "only cat and stack do");
    }
  }
  check_dims(call, aten.op, inputs.at(0).shape.size());
  aten.role = role_of(call, aten);
  std::vector<const Activation*> pointers;
  for (const Activation& input : inputs) {
    pointers.push_back(&input);
  }
  call.emit(OpKind::kAten, pointers, traced_shape(call, 0));
  call.emitted().call = std::move(aten);
}

namespace {

// Heads that several queries share, once for each of them.
Activation repeated_heads(Call& call, const Activation& heads, int64_t times) {
  std::vector<int64_t> shape = heads.shape, repeats(heads.shape.size() + 1, -1);
  const auto behind = static_cast<int64_t>(heads.shape.size()) - 2;
  shape.insert(shape.begin() + behind, 1);
  const Activation apart = emit_call(call, heads, copying("aten::unsqueeze", "", {c10::IValue(), behind}), shape);
  shape[behind] = repeats[behind] = times;
  const Activation wide =
      emit_call(call, apart, copying("aten::expand", "", {c10::IValue(), c10::IValue(repeats), false}), shape);
  shape.erase(shape.begin() + behind);
  shape[behind - 1] *= times;
  AtenCall reshape = copying("aten::reshape", "", {c10::IValue(), c10::IValue(shape)});
  reshape.batch_sizes.emplace_back(1, 0);
  return emit_call(call, wide, std::move(reshape), shape);
}

}  // namespace

// Says the scale, which by default depends on a shape, and gives each query's head its own key and value: targets have
// neither default.
void translate_attention(Call& call) {
  enum : size_t { kQuery, kKey, kValue, kMask, kDropout, kCausal, kScale, kShared };
  AtenCall aten{call.op(), "", AtenRole::kComputes, {}, {}, {}};
  std::vector<Activation> inputs;
  std::vector<std::vector<int64_t>> shapes;  // of query, key and value
  for (const auto i : c10::irange(call.node().inputs().size())) {
    const torch::jit::Value* value = call.node().input(i);
    if (const Constant* constant = call.importer().constant(value)) {
      aten.arguments.push_back(constant->value);
      add_batch_sizes(call, *constant, i, aten);
    } else {
      aten.arguments.emplace_back();
      aten.slots.push_back(i);
      inputs.push_back(materialised(call, call.importer().activation(value)));
    }
    if (i <= kValue) {
      const c10::IValue& given = aten.arguments.back();
      shapes.push_back(given.isTensor() ? given.toTensor().sizes().vec() : inputs.back().shape);
    }
  }
  if (aten.arguments.at(kScale).isNone()) {
    aten.arguments[kScale] = 1 / std::sqrt(static_cast<double>(shapes[kQuery].back()));
  }
  if (aten.arguments.at(kShared).toBool()) {
    aten.arguments[kShared] = false;
    const auto heads = [&](size_t i) { return shapes[i].at(shapes[i].size() - 3); };
    for (const size_t i : {kKey, kValue}) {
      if (const int64_t times = heads(kQuery) / heads(i); times > 1) {
        const auto slot = std::find(aten.slots.begin(), aten.slots.end(), i);
        if (slot == aten.slots.end()) {
          call.refuse("its heads are shared and do not depend on the input", "repeat them for each head of the query");
        }
        Activation& shared = inputs[slot - aten.slots.begin()];
        shared = repeated_heads(call, shared, times);
      }
    }
  }
  std::vector<const Activation*> pointers;
  for (const Activation& input : inputs) {
    pointers.push_back(&input);
  }
  call.emit(OpKind::kAten, pointers, traced_shape(call, 0));
  call.emitted().call = std::move(aten);
}

void translate_mul(Call& call) {
  if (call.constant("self") != nullptr || call.constant("other") != nullptr) {
    translate_aten(call);
    return;
  }
  const Activation left = materialised(call, call.activation("self"));
  const Activation right = materialised(call, call.activation("other"));
  call.emit(OpKind::kMul, {&left, &right}, traced_shape(call, 0));
}

namespace {

void emit_concat(Call& call, const std::vector<Activation>& parts, int64_t dim) {
  std::vector<const Activation*> pointers;
  for (const Activation& part : parts) {
    pointers.push_back(&part);
  }
  std::vector<int64_t> shape = traced_shape(call, 0);
  const auto dims = static_cast<int64_t>(shape.size());
  call.emit(OpKind::kConcat, pointers, std::move(shape));
  call.emitted().dim = dim < 0 ? dim + dims : dim;
}

}  // namespace

void translate_cat(Call& call) {
  std::vector<Activation> parts;
  for (const Activation& part : call.activations("tensors")) {
    parts.push_back(materialised(call, part));
  }
  check_dims(call, "aten::cat", parts.at(0).shape.size());
  emit_concat(call, parts, call.integer("dim"));
}

void translate_stack(Call& call) {
  std::vector<Activation> parts;
  const auto dims = static_cast<int64_t>(call.activations("tensors").at(0).shape.size()) + 1;
  const int64_t dim = call.integer("dim") < 0 ? call.integer("dim") + dims : call.integer("dim");
  check_dims(call, "aten::stack", dims);
  for (const Activation& part : call.activations("tensors")) {
    std::vector<int64_t> shape = part.shape;
    shape.insert(shape.begin() + dim, 1);
    parts.push_back(
        emit_call(call, materialised(call, part), copying("aten::unsqueeze", "", {c10::IValue(), dim}), shape));
  }
  emit_concat(call, parts, dim);
}

// chunk, split, split_with_sizes, unbind: a slice for each element of the list.
void translate_split(Call& call) {
  const Activation input = materialised(call, call.activation("self"));
  const auto dims = static_cast<int64_t>(input.shape.size());
  const int64_t dim = call.integer("dim") < 0 ? call.integer("dim") + dims : call.integer("dim");
  if (dim == 0) {
    call.refuse("it splits the batch", "keep the batch dimension as it is");
  }
  const int64_t size = input.shape.at(dim);
  const bool unbinds = call.op() == "aten::unbind";
  std::vector<int64_t> lengths;
  if (call.has("split_sizes")) {
    lengths = call.ints("split_sizes");
  } else {
    int64_t step = 1;
    if (call.has("chunks")) {
      step = (size + call.integer("chunks") - 1) / call.integer("chunks");
    } else if (call.has("split_size")) {
      lengths = call.ints("split_size");
      step = lengths.size() == 1 ? lengths[0] : 0;
    }
    if (step > 0) {
      lengths.assign(size / step, step);
      if (size % step != 0) {
        lengths.push_back(size % step);
      }
    }
  }
  std::vector<Activation> parts;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    std::vector<int64_t> shape = input.shape;
    if (unbinds) {
      shape.erase(shape.begin() + dim);
      parts.push_back(emit_call(call, input, copying("aten::select", "int", {c10::IValue(), dim, begin}), shape));
    } else {
      shape[dim] = length;
      parts.push_back(
          emit_call(call, input,
                    copying("aten::slice", "Tensor", {c10::IValue(), dim, begin, begin + length, int64_t{1}}), shape));
    }
    begin += length;
  }
  call.importer().set_list(call.node().output(0), std::move(parts));
}

}  // namespace torchslim::graph::detail
