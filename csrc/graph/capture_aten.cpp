// SPDX-License-Identifier: BSD-3-Clause
// Operators that have no kind of their own, and lists of tensors.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
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
void check_dims(const Call& call, const std::string& op, size_t dims, int64_t batch_dim = 0) {
  static const std::set<std::string> mixing{"aten::sum",         "aten::mean",         "aten::softmax",
                                            "aten::log_softmax", "aten::amax",         "aten::max",
                                            "aten::slice",       "aten::index_select", "aten::select",
                                            "aten::flip",        "aten::roll",         "aten::narrow",
                                            "aten::argmax",      "aten::cumsum",       "aten::cat",
                                            "aten::stack",       "aten::amin",         "aten::min",
                                            "aten::var",         "aten::std",          "aten::linalg_vector_norm"};
  if (mixing.count(op) == 0) {
    return;
  }
  for (const char* argument : {"dim", "dims"}) {
    if (!call.has(argument) || call.is_none(argument)) {
      continue;
    }
    for (const int64_t dim : call.ints(argument)) {
      if (dim == batch_dim || dim == batch_dim - static_cast<int64_t>(dims)) {
        call.refuse("it works across the images of the batch (dimension " + std::to_string(batch_dim) + ")",
                    "keep the batch dimension as it is");
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

// A tensor of one image for all: what is the same for each image of the batch that `constant` was expanded to.
std::optional<at::Tensor> one_for_all(const Call& call, const Constant& constant, int64_t batch) {
  const at::Tensor& tensor = constant.value.toTensor();
  if (tensor.dim() == 0 || tensor.size(0) != batch) {
    return std::nullopt;
  }
  const at::Tensor first = tensor.narrow(0, 0, 1);
  if (!first.expand_as(tensor).equal(tensor)) {
    return std::nullopt;
  }
  if (constant.batch_at(0) == Batch::kNone && !call.importer().note_baked_batch()) {
    call.refuse("the batch size " + std::to_string(batch) + " is written into the trace",
                "expand the tensor to the input's size, x.size(0)");
  }
  return first.contiguous();
}

// Where a tensor of one image may stand for the same for each image of a batch.
bool broadcasts(const std::string& op) {
  static const std::set<std::string> ops{"aten::maximum", "aten::minimum", "aten::where", "aten::masked_fill",
                                         "aten::gt",      "aten::ge",      "aten::lt",    "aten::le"};
  return is_arithmetic(op) || ops.count(op) != 0;
}

// Notes which numbers of an argument follow the batch size; the one of a new shape that is a multiple of it is left open.
void add_batch_sizes(Call& call, const Constant& constant, size_t argument, AtenCall& aten) {
  if (aten.op == "aten::reshape" && constant.value.isIntList()) {
    std::vector<int64_t> sizes = constant.value.toIntVector();
    const auto follow =
        std::count_if(constant.batch.begin(), constant.batch.end(), [](Batch batch) { return batch != Batch::kNone; });
    const auto mixed = std::find(constant.batch.begin(), constant.batch.end(), Batch::kMixed);
    if (follow == 1 && mixed != constant.batch.end() && std::count(sizes.begin(), sizes.end(), -1) == 0) {
      sizes.at(mixed - constant.batch.begin()) = -1;
      aten.arguments.at(argument) = sizes;
      return;
    }
  }
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

// Where the batch goes that lies in a dimension which an operation leaves, drops others before, or puts some before.
int64_t batch_after(const Call& call, const AtenCall& aten, const Activation& input,
                    const std::vector<int64_t>& shape) {
  const auto rank = static_cast<int64_t>(input.shape.size()), dims = static_cast<int64_t>(shape.size());
  const int64_t batch = input.batch_dim;
  const auto wrapped = [](int64_t dim, int64_t of) { return dim < 0 ? dim + of : dim; };
  if (aten.op == "aten::permute") {
    const std::vector<int64_t> order = call.ints("dims");
    return std::find_if(order.begin(), order.end(), [&](int64_t dim) { return wrapped(dim, rank) == batch; }) -
           order.begin();
  }
  if (aten.op == "aten::transpose" || aten.op == "aten::t") {
    const bool named = call.has("dim0");
    const int64_t left = named ? wrapped(call.integer("dim0"), rank) : 0;
    const int64_t right = named ? wrapped(call.integer("dim1"), rank) : rank - 1;
    return batch == left ? right : batch == right ? left : batch;
  }
  if (aten.op == "aten::unsqueeze") {
    return wrapped(call.integer("dim"), dims) <= batch ? batch + 1 : batch;
  }
  if (aten.op == "aten::reshape") {
    const Constant& sizes = *call.constant(call.has("size") ? "size" : "shape");
    for (const auto i : c10::irange(dims)) {
      if (sizes.batch_at(i) != Batch::kNone) {
        return i;
      }
    }
    if (batch < dims && shape[batch] == input.shape[batch]) {
      return batch;
    }
    const std::vector<int64_t> asked = call.ints(call.has("size") ? "size" : "shape");
    const auto open = std::find(asked.begin(), asked.end(), -1);
    return open == asked.end() ? batch : open - asked.begin();
  }
  if (aten.op == "aten::unflatten") {
    return wrapped(call.integer("dim"), rank) < batch ? batch + dims - rank : batch;
  }
  if (aten.op == "aten::flatten") {
    const int64_t first = wrapped(call.integer("start_dim"), rank), last = wrapped(call.integer("end_dim"), rank);
    return batch > last ? batch - (last - first) : std::min(batch, first);
  }
  if (dims > rank) {
    return batch + dims - rank;  // new dimensions come first
  }
  int64_t dropped = 0;
  if (dims < rank && call.has("dim") && !call.is_none("dim")) {
    for (const int64_t dim : call.ints("dim")) {
      const int64_t place = wrapped(dim, rank);
      dropped += place < batch && (aten.op != "aten::squeeze" || input.shape[place] == 1) ? 1 : 0;
    }
  }
  return batch - dropped;
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

namespace {

// x[:, 1:] slices the batch too, from end to end.
bool slices_nothing(const Call& call) {
  return call.op() == "aten::slice" && call.integer("dim") == 0 &&
         (call.is_none("start") || call.integer("start") == 0) &&
         (call.is_none("end") || call.integer("end") == std::numeric_limits<int64_t>::max()) &&
         call.integer("step") == 1;
}

// The greater or the lesser of two tensors, under the name that says so.
void name_pairs(const Call& call, AtenCall& aten) {
  if ((aten.op == "aten::max" || aten.op == "aten::min") && call.has("other")) {
    aten.op += "imum";
    aten.overload.clear();
  }
}

}  // namespace

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
  name_pairs(call, aten);
  std::vector<Activation> inputs;
  for (const auto i : c10::irange(call.node().inputs().size())) {
    const torch::jit::Value* value = call.node().input(i);
    if (const Constant* constant = call.importer().constant(value)) {
      const bool follows = constant->value.isTensor() && constant->batch_at(0) != Batch::kNone && broadcasts(aten.op);
      const auto same = follows ? one_for_all(call, *constant, call.importer().batch()) : std::nullopt;
      aten.arguments.push_back(same ? c10::IValue(*same) : constant->value);
      if (!same) {
        add_batch_sizes(call, *constant, i, aten);
      }
    } else if (call.importer().is_activation(value)) {
      aten.slots.push_back(i);
      aten.arguments.emplace_back();
      inputs.push_back(materialised(call, call.importer().activation(value)));
    } else {
      call.refuse("it takes a list of tensors that depend on the input", "only cat and stack do");
    }
  }
  check_dims(call, aten.op, inputs.at(0).shape.size(), inputs.at(0).batch_dim);
  aten.role = role_of(call, aten);
  std::vector<const Activation*> pointers;
  for (const Activation& input : inputs) {
    pointers.push_back(&input);
  }
  std::vector<int64_t> shape = traced_shape(call, 0);
  const std::string op = aten.op;
  if (inputs.size() == 1) {
    const int64_t batch_dim = batch_after(call, aten, inputs[0], shape);
    if ((op == "aten::flatten" || op == "aten::unflatten") && batch_dim != 0) {
      std::vector<int64_t> sizes = shape;
      sizes.at(batch_dim) = -1;
      aten = copying("aten::reshape", "", {c10::IValue(), sizes});
    }
    call.emit(OpKind::kAten, pointers, std::move(shape));
    call.set_batch_dim(batch_dim);
  } else {
    call.emit(OpKind::kAten, pointers, std::move(shape));
  }
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

Activation padded(Call& call, const Activation& input, int64_t dim, int64_t before, int64_t after) {
  if (before == 0 && after == 0) {
    return input;
  }
  std::vector<int64_t> shape = input.shape;
  std::vector<int64_t> pads(2 * (shape.size() - dim), 0);
  pads[pads.size() - 2] = before;
  pads[pads.size() - 1] = after;
  shape[dim] += before + after;
  return emit_call(call, input, copying("aten::constant_pad_nd", "", {c10::IValue(), pads, int64_t{0}}), shape);
}

namespace {

// Constants between tensors that depend on the input, such as a class token: zeros there, to which they are added.
void translate_cat_with_constants(Call& call, const torch::jit::Node& list) {
  const std::vector<int64_t> shape = traced_shape(call, 0);
  check_dims(call, "aten::cat", shape.size());
  const auto dims = static_cast<int64_t>(shape.size());
  const int64_t dim = call.integer("dim") < 0 ? call.integer("dim") + dims : call.integer("dim");
  std::vector<Activation> parts;
  std::vector<int64_t> after;  // zeros behind each part
  int64_t before = 0, place = 0;
  std::vector<int64_t> one_image = shape;
  one_image[0] = 1;
  const at::Tensor constants = at::zeros(one_image, at::kFloat);
  for (const torch::jit::Value* element : list.inputs()) {
    if (call.importer().is_activation(element)) {
      parts.push_back(materialised(call, call.importer().activation(element)));
      after.push_back(0);
      place += parts.back().shape.at(dim);
      continue;
    }
    const Constant* constant = call.importer().constant(element);
    if (constant == nullptr || !constant->value.isTensor() || constant->value.toTensor().dim() != dims) {
      call.refuse("it takes a list of lists", "concatenate tensors");
    }
    const auto same = one_for_all(call, *constant, shape[0]);
    if (!same) {
      call.refuse("it puts a constant that is not the same for each image beside the input",
                  "expand one to the batch, with expand(x.size(0), ...)");
    }
    check_parameter({constant->name, *same}, "(constant of " + call.op() + ")");
    const int64_t length = same->size(dim);
    constants.narrow(dim, place, length).copy_(*same);
    place += length;
    (parts.empty() ? before : after.back()) += length;
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i] = padded(call, parts[i], dim, i == 0 ? before : 0, after[i]);
  }
  if (parts.size() > 1) {
    emit_concat(call, parts, dim);
    parts = {{call.importer().last_node(), shape}};
  }
  emit_call(call, parts[0],
            {"aten::add", "Tensor", AtenRole::kComputes, {c10::IValue(), constants, int64_t{1}}, {0}, {}}, shape);
}

}  // namespace

// A gated linear unit: one half times the sigmoid of the other.
void translate_glu(Call& call) {
  const Activation input = materialised(call, call.activation("self"));
  const auto dims = static_cast<int64_t>(input.shape.size());
  const int64_t dim = call.integer("dim") < 0 ? call.integer("dim") + dims : call.integer("dim");
  if (dim == 0) {
    call.refuse("it works across the images of the batch (dimension 0)", "keep the batch dimension as it is");
  }
  std::vector<int64_t> shape = input.shape;
  shape.at(dim) /= 2;
  const auto half = [&](int64_t begin) {
    return emit_call(call, input,
                     copying("aten::slice", "Tensor", {c10::IValue(), dim, begin, begin + shape[dim], int64_t{1}}),
                     shape);
  };
  const Activation first = half(0);
  const Activation gate =
      emit_call(call, half(shape[dim]), {"aten::sigmoid", "", AtenRole::kElementwise, {c10::IValue()}, {0}, {}}, shape);
  call.emit(OpKind::kMul, {&first, &gate}, shape);
}

// Over the root of the mean square; in operators that older runtimes have too.
void translate_rms_norm(Call& call) {
  using c10::IValue;
  const Activation input = materialised(call, call.activation("input"));
  const auto over = static_cast<int64_t>(call.ints("normalized_shape").size());
  const auto rank = static_cast<int64_t>(input.shape.size());
  if (rank - over <= input.batch_dim) {
    call.refuse("it works across the images of the batch", "keep the batch dimension as it is");
  }
  std::vector<int64_t> dims, means = input.shape;
  for (int64_t dim = rank - over; dim < rank; ++dim) {
    dims.push_back(dim);
    means[dim] = 1;
  }
  constexpr auto kComputes = AtenRole::kComputes;  // all of it, as the norm is one operation to who prepares it
  const auto product = [&](const Activation& other) {
    const Activation result = call.emit(OpKind::kAten, {&input, &other}, input.shape);
    call.emitted().call = AtenCall{"aten::mul", "Tensor", kComputes, {IValue(), IValue()}, {0, 1}, {}};
    return result;
  };
  const double eps = call.is_none("eps") ? std::numeric_limits<float>::epsilon() : call.number("eps");
  const Activation squares = product(input);
  const Activation mean =
      emit_call(call, squares, {"aten::mean", "dim", kComputes, {IValue(), dims, true, IValue()}, {0}, {}}, means);
  const Activation sum =
      emit_call(call, mean, {"aten::add", "Scalar", kComputes, {IValue(), eps, int64_t{1}}, {0}, {}}, means);
  const Activation factor = emit_call(call, sum, {"aten::rsqrt", "", kComputes, {IValue()}, {0}, {}}, means);
  const Activation even = product(factor);
  if (!call.is_none("weight")) {
    const at::Tensor weight = call.parameter("weight").value;
    emit_call(call, even, {"aten::mul", "Tensor", kComputes, {IValue(), weight}, {0}, {}}, input.shape);
  }
}

void translate_cat(Call& call) {
  const torch::jit::Node& list = *call.value("tensors")->node();
  const bool mixed = std::any_of(list.inputs().begin(), list.inputs().end(), [&](const torch::jit::Value* element) {
    return call.importer().constant(element) != nullptr;
  });
  if (list.kind() == c10::prim::ListConstruct && mixed) {
    return translate_cat_with_constants(call, list);
  }
  std::vector<Activation> parts;
  for (const Activation& part : call.activations("tensors")) {
    parts.push_back(materialised(call, part));
  }
  check_dims(call, "aten::cat", parts.at(0).shape.size(), parts.at(0).batch_dim);
  emit_concat(call, parts, call.integer("dim"));
}

void translate_stack(Call& call) {
  std::vector<Activation> parts;
  const auto dims = static_cast<int64_t>(call.activations("tensors").at(0).shape.size()) + 1;
  const int64_t dim = call.integer("dim") < 0 ? call.integer("dim") + dims : call.integer("dim");
  const int64_t batch_dim =
      call.activations("tensors").at(0).batch_dim + (dim <= call.activations("tensors").at(0).batch_dim ? 1 : 0);
  for (const Activation& part : call.activations("tensors")) {
    std::vector<int64_t> shape = part.shape;
    shape.insert(shape.begin() + dim, 1);
    parts.push_back(
        emit_call(call, materialised(call, part), copying("aten::unsqueeze", "", {c10::IValue(), dim}), shape));
  }
  emit_concat(call, parts, dim);
  call.set_batch_dim(batch_dim);
}

// chunk, split, split_with_sizes, unbind: a slice for each element of the list.
void translate_split(Call& call) {
  const Activation input = materialised(call, call.activation("self"));
  const auto dims = static_cast<int64_t>(input.shape.size());
  const int64_t dim = call.integer("dim") < 0 ? call.integer("dim") + dims : call.integer("dim");
  if (dim == input.batch_dim) {
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
      parts.back().batch_dim -= dim < input.batch_dim ? 1 : 0;
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
