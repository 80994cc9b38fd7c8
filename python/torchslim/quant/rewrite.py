# SPDX-License-Identifier: BSD-3-Clause
"""Puts quantisers into a traced graph: how each operation becomes its int8 form."""

import copy
import itertools
import operator
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

import torch
import torch.nn.functional as F
from torch import fx, nn

from torchslim import _C
from torchslim.quant import patterns
from torchslim.quant import rewrite_operations as operations
from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.config import LayerConfig, QuantConfig
from torchslim.quant.convolution_layers import QUANT_CONVOLUTIONS
from torchslim.quant.layers import BATCH_NORMS, QuantAveragePool, QuantLayer, QuantLinear, SharedFakeQuantize, pair
from torchslim.quant.weighted_layers import WeightedLayer

#: The rule of each kind: the table that C++ and lowering follow too (docs/api/graph/operation_rules.md).
_RULES = {rule.kind: rule for rule in _C.graph.operation_rules()}
_OWN_GRID = {kind for kind, rule in _RULES.items() if rule.grid == _C.graph.GridRule.OWN}
_KEEPS_GRID = {kind for kind, rule in _RULES.items() if rule.grid == _C.graph.GridRule.INPUT}

#: How messages name the call that the user made.
WHO = "torchslim.quant.prepare"

_SUPPORTED = "layers, sums, products, concatenations, pools, activations and what moves elements about"
_Pool = TypeVar("_Pool", nn.AvgPool1d, nn.AvgPool2d, nn.MaxPool1d, nn.MaxPool2d)
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_WINDOW = ("kernel", "stride", "padding")
_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


class Rewriter:
    """Turns a traced graph into that of the prepared model, and the modules of `root` with it.

    Walks the operations in order. `grids` holds, for each tensor that is done, the quantiser whose grid it is on;
    `floats` the tensors that stay in float, with what rounds them where a layer on grids reads them.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, config: QuantConfig) -> None:
        """Takes the traced model, whose modules it will replace, and its graph with the shapes of an example."""
        self.config = config
        self.root = root
        self.graph = graph
        self.modules = dict(root.named_modules(remove_duplicate=False))
        self.grids: dict[fx.Node, ActivationQuantizer] = {}
        self.floats: dict[fx.Node, fx.Node | None] = {}
        self.done: set[fx.Node] = set()
        #: The layers with a weight that stay in float.
        self.float_layers: list[str] = []

    def run(self) -> None:
        """Rewrites the whole graph, or raises at the first operation that int8 lacks."""
        self._resolve_overwrites()
        for node in [n for n in self.graph.nodes if self._kind(n) == "identity"]:
            self._replace(node, self.input_of(node))
        self._part_shared_layers()
        for node in list(self.graph.nodes):
            if node not in self.done:
                self._rewrite(node)
        self.config.check_used()
        self._drop_unused_sizes()

    def _rewrite(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._place_input(node)
        elif node.op == "output":
            self._check_output(node)
        elif not _is_plain_number(node) and self._depends_on_input(node) and not self._stays_in_float(node):
            self._bring_onto_grids(node)
            getattr(self, "_do_" + self._kind(node))(node)

    # --- operations, in the order of the table in patterns.py -----------------------------------------------------

    def _place_input(self, node: fx.Node) -> None:
        users = list(node.users)
        if self.config.layer("input_fake_quantize", "input").float or (
            users and all(self._kind(user) in _OWN_GRID and self._settings_of(user).float for user in users)
        ):
            self.floats[node] = None
            self.done.add(node)
            return
        path, quantizer = self.new_quantizer("", "input_fake_quantize", "input")
        with self.graph.inserting_after(node):
            rounded = self.graph.call_module(path)
        node.replace_all_uses_with(rounded)
        rounded.args = (node,)
        rounded.meta = dict(node.meta)
        self.finish(rounded, quantizer)

    def _do_conv(self, node: fx.Node) -> None:
        self._join_layer(node)

    def _do_linear(self, node: fx.Node) -> None:
        self._join_layer(node)

    def _join_layer(self, node: fx.Node) -> None:
        """Puts a layer with a weight on grids, with the batch norm and the activation that alone read it."""
        layer = self.modules[str(node.target)]
        self._check_layer(node, layer)
        last, norm = node, None
        follower = self._only_user(node)
        takes_norm = self._kind(node) == "conv" or len(self._shape(node)) == 2
        if follower is not None and self._kind(follower) == "batch_norm" and takes_norm:
            norm = self.modules[str(follower.target)]
            self._check_batch_norm(follower, norm)
            last = follower
        activation, last = self.activation_after(last)
        kinds = QUANT_CONVOLUTIONS | {nn.Linear: QuantLinear}
        kind: Any = next(quant for kind, quant in kinds.items() if isinstance(layer, kind))
        settings = self._quantizers(node, activation)
        try:
            made = kind(layer, self.grid(node), batch_norm=norm, name=str(node.target), **settings)
        except ValueError as error:
            raise ValueError(f"{WHO}: {error}") from None
        self._join(node, last, made)

    def _do_batch_norm(self, node: fx.Node) -> None:
        norm = self.modules[str(node.target)]
        self._check_batch_norm(node, norm)
        operations.scale_channels(self, node, norm)

    def _do_relu(self, node: fx.Node) -> None:
        with self.graph.inserting_before(node):
            result = self.graph.call_function(torch.relu, (self.input_of(node),))
        self._substitute(node, result)

    def _do_relu6(self, node: fx.Node) -> None:
        path = self.add_module(operations.home(node), "relu6_fake_quantize", SharedFakeQuantize(self.grid(node)))
        with self.graph.inserting_before(node):
            clamped = self.graph.call_function(F.relu6, (self.input_of(node),))
            rounded = self.graph.call_module(path, (clamped,))
        self._substitute(node, rounded)

    def _do_add(self, node: fx.Node) -> None:
        operations.add_or_multiply(self, node, "add")

    def _do_mul(self, node: fx.Node) -> None:
        operations.add_or_multiply(self, node, "mul")

    def _do_arithmetic(self, node: fx.Node) -> None:
        operations.apply_function(self, node)

    def _do_function(self, node: fx.Node) -> None:
        operations.apply_function(self, node)

    def _do_concat(self, node: fx.Node) -> None:
        operations.concatenate(self, node)

    def _do_move(self, node: fx.Node) -> None:
        self.finish(node, self.grid(node))

    def _do_adaptive_avg_pool(self, node: fx.Node) -> None:
        self._average(node, keep_dims=True)

    def _do_mean(self, node: fx.Node) -> None:
        self._average(node, keep_dims=len(self._shape(node)) == len(self._shape(self.input_of(node))))

    def _average(self, node: fx.Node, keep_dims: bool) -> None:
        module = QuantAveragePool(self.grid(node))
        if keep_dims:
            self._call_new_module(node, "global_avg_pool", module)
            return
        path = self.add_module(operations.home(node), "global_avg_pool", module)
        with self.graph.inserting_before(node):
            pooled = self.graph.call_module(path, (self.input_of(node),))
            flat = self.graph.call_function(torch.flatten, (pooled, 1))
        self._substitute(node, flat)

    def _do_avg_pool(self, node: fx.Node) -> None:
        self._call_new_module(node, "avg_pool", QuantAveragePool(self.grid(node), self._average_pool(node)))

    def _average_pool(self, node: fx.Node) -> nn.AvgPool2d:
        """The average pool of `node`; one over (N, C, L) as that of images of height 1."""
        if not patterns.is_one_dimensional(node, self.modules):
            return self._as_module(node, nn.AvgPool2d, _AVG_POOL)
        pool = self._as_module(node, nn.AvgPool1d, _AVG_POOL[:5])
        sizes = [v if isinstance(v, int) else v[0] for v in (pool.kernel_size, pool.stride, pool.padding)]
        return nn.AvgPool2d((1, sizes[0]), (1, sizes[1]), (0, sizes[2]), pool.ceil_mode, pool.count_include_pad)

    def _do_max_pool(self, node: fx.Node) -> None:
        one = patterns.is_one_dimensional(node, self.modules)
        pool = self._as_module(node, nn.MaxPool1d, _MAX_POOL) if one else self._as_module(node, nn.MaxPool2d, _MAX_POOL)
        if pool.return_indices:
            self.refuse(node, "expected return_indices False", "unpooling cannot run in int8")
        if node.op == "call_module":
            self.finish(node, self.grid(node))
        else:
            self._call_new_module(node, "max_pool", pool)

    def _do_flatten(self, node: fx.Node) -> None:
        before, after = self._shape(self.input_of(node)), self._shape(node)
        if before == after:
            self._replace(node, self.input_of(node))
            return
        if not patterns.is_flattening(before, after):
            self.finish(node, self.grid(node))
            return
        with self.graph.inserting_before(node):
            flat = self.graph.call_function(torch.flatten, (self.input_of(node), 1))
        self._substitute(node, flat)

    def _do_dropout(self, node: fx.Node) -> None:
        if node.op == "call_module":
            dropout = self.modules[str(node.target)]
            dropout.__dict__["inplace"] = False
            self.finish_like_input(node, node)
            return
        if self._argument(node, "training", 2, True) is False:
            self._replace(node, self.input_of(node))
            return
        kind = nn.Dropout2d if node.target is F.dropout2d else nn.Dropout
        module = kind(float(self._argument(node, "p", 1, 0.5))).train(self.root.training)
        self._call_new_module(node, "dropout", module)

    # --- what the operations above share --------------------------------------------------------------------------

    def _kind(self, node: fx.Node) -> str:
        return patterns.kind_of(node, self.modules)

    def _argument(self, node: fx.Node, name: str, position: int, default: object) -> Any:  # noqa: ANN401
        return patterns.argument(node, self.modules, name, position, default)

    def refuse(self, node: fx.Node, why: str, remedy: str) -> NoReturn:
        """Ends prepare: `why` is what is wrong with `node`, `remedy` what to do."""
        raise ValueError(f"{WHO}: {patterns.describe(node, self.modules)}: {why}; {remedy}")

    def input_of(self, node: fx.Node) -> fx.Node:
        """The tensor that `node` works on."""
        x = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(x, fx.Node):
            self.refuse(node, "expected a tensor that depends on the input", "compute constants outside forward")
        return x

    def grid(self, node: fx.Node) -> ActivationQuantizer:
        """The quantiser whose grid the input of `node` is on."""
        x = self.input_of(node)
        if x not in self.grids:
            self.refuse(node, "its input is not an image or activation", "feed it what depends on the input")
        return self.grids[x]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        shape = patterns.shape_of(node)
        if shape is None:
            self.refuse(node, "expected it to give one tensor", f"int8 has {_SUPPORTED}")
        return shape

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        users = list(node.users)
        return users[0] if len(users) == 1 else None

    def activation_after(self, node: fx.Node) -> tuple[str, fx.Node]:
        """The activation that alone reads `node`, and the node that is the result of both."""
        follower = self._only_user(node)
        if follower is not None and self._kind(follower) in ("relu", "relu6"):
            return self._kind(follower), follower
        return "none", node

    def _join(self, node: fx.Node, last: fx.Node, layer: QuantLayer) -> None:
        """Puts `layer` in the place of the module of `node`, and of all nodes up to `last`."""
        path = str(node.target)
        parent, _, name = path.rpartition(".")
        self.modules[parent]._modules[name] = layer
        self.modules[path] = layer
        x = self.input_of(node)
        while last is not node:
            before = self.input_of(last)
            last.replace_all_uses_with(before)
            self._erase(last)
            last = before
        node.args, node.kwargs = (x,), {}
        self.finish(node, layer.output_fake_quantize)

    def _as_module(self, node: fx.Node, kind: type[_Pool], names: tuple[str, ...]) -> _Pool:
        """The pool of a module form, or one made of a function's arguments."""
        if node.op == "call_module":
            pool = self.modules[str(node.target)]
            assert isinstance(pool, kind)
            return pool
        given: dict[str, Any] = dict(zip(names, node.args[1:], strict=False)) | {
            n: v for n, v in node.kwargs.items() if n in names
        }
        # A window that is read off a shape has the size it has for the example, as the whole graph does.
        return kind(**fx.node.map_arg(given, lambda number: number.meta["number"]))

    def _call_new_module(self, node: fx.Node, name: str, module: nn.Module) -> None:
        """Puts a call of `module` in the place of `node`, added as `name` where `node` is written down."""
        path = self.add_module(operations.home(node), name, module)
        with self.graph.inserting_before(node):
            result = self.graph.call_module(path, (self.input_of(node),))
        self._substitute(node, result)

    def _substitute(self, node: fx.Node, result: fx.Node) -> None:
        """Puts `result` in the place of `node`, on the grid of its input."""
        result.meta = dict(node.meta)
        self.finish_like_input(result, node)
        self._replace(node, result)

    def finish_like_input(self, result: fx.Node, node: fx.Node) -> None:
        """`result` is on the grid of what `node` reads, or in float as that is."""
        if self.input_of(node) in self.floats:
            self.floats[result] = None
            self.done.add(result)
        else:
            self.finish(result, self.grid(node))

    def finish(self, node: fx.Node, grid: ActivationQuantizer) -> None:
        """Notes that `node` is done and gives values on `grid`."""
        self.grids[node] = grid
        self.done.add(node)

    def _replace(self, node: fx.Node, by: fx.Node) -> None:
        node.replace_all_uses_with(by)
        self._erase(node)

    def _erase(self, node: fx.Node) -> None:
        self.graph.erase_node(node)
        self.done.add(node)

    def add_module(self, parent: str, name: str, module: nn.Module) -> str:
        """Adds `module` to the module at `parent`, as `name` or the first free of name_1, name_2, ..."""
        path = self._free_path(parent, name)
        self.modules[parent].add_module(path.rpartition(".")[2], module.train(self.root.training))
        self.modules[path] = module
        return path

    def _free_path(self, parent: str, name: str) -> str:
        owner = self.modules[parent]
        free = next(
            n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1))) if not hasattr(owner, n)
        )
        return f"{parent}.{free}" if parent else free

    # --- what each operation is quantised with --------------------------------------------------------------------

    def _settings_of(self, node: fx.Node, path: str | None = None) -> LayerConfig:
        """What a layer, or an operation with a quantiser of its own (at `path`), is quantised with."""
        kind = self._kind(node)
        if path is None:
            named = node.op == "call_module" or kind in ("function", "arithmetic")
            name = operations.name_of(self, node) if named else kind
            path = self._free_path(operations.home(node), f"{name}_fake_quantize")
        if node.op != "call_module":
            return self.config.layer(path, kind)
        module = self.modules[str(node.target)]
        return self.config.layer(str(node.target), kind, module, "" if kind in ("conv", "linear") else path)

    def _quantizers(self, node: fx.Node, activation: str) -> dict[str, Any]:
        """The quantisers of a layer with a weight, as its arguments."""
        settings = self._settings_of(node)
        try:
            return {
                "output_fake_quantize": settings.activation.build(activation),
                "weight_fake_quantize": settings.weight.build(self.modules[str(node.target)]),
            }
        except (TypeError, ValueError) as error:
            raise type(error)(f"{WHO}: layer {str(node.target)!r}: {error}") from None

    def new_quantizer(
        self, parent: str, name: str, node: fx.Node | str, activation: str = "none"
    ) -> tuple[str, ActivationQuantizer]:
        """A quantiser behind `node` (or of that kind), added to the module at `parent`; its path goes with it."""
        path = self._free_path(parent, name)
        settings = self.config.layer(path, node) if isinstance(node, str) else self._settings_of(node, path)
        try:
            quantizer = settings.activation.build(activation)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{WHO}: {path!r}: {error}") from None
        return self.add_module(parent, name, quantizer), quantizer

    def _stays_in_float(self, node: fx.Node) -> bool:
        """Leaves `node` as it is if its settings say so, or if it would keep the grid of an input that has none."""
        kind = self._kind(node)
        has_no_form = kind == "" or self._has_no_integer_form(node, kind)
        if has_no_form:
            stays = True
        elif kind == "batch_norm" and self._kind(self.input_of(node)) in ("conv", "linear"):
            stays = True  # the layer before it would have taken it, were it not in float
        elif kind in _OWN_GRID:
            stays = self._settings_of(node).float
        else:
            stays = kind in _KEEPS_GRID and any(x in self.floats for x in node.all_input_nodes)
        if stays and kind == "dropout":
            self._do_dropout(node)  # a function of its own says whether it trains
        elif stays:
            self.floats[node] = None
            operations.not_in_place(self, node)
            listed = has_no_form or kind in ("conv", "linear", "batch_norm")
            if listed and node.target is not operator.getitem:
                self.float_layers.append(self._name_of(node))
            self.done.add(node)
        return stays

    def _has_no_integer_form(self, node: fx.Node, kind: str) -> bool:
        """Whether this form of an operation, other than the usual ones, runs in float."""
        x = patterns.shape_of(node.all_input_nodes[0]) if node.all_input_nodes else None
        if kind == "concat" and not self._are_computed(node.all_input_nodes):
            return True  # a class token, say
        if x is None:
            return kind not in ("move", "concat")
        if kind == "mean" and not patterns.is_spatial_mean(node, x):
            return True
        if kind == "conv":
            # An output_size goes with one size of the input; without a batch, channels would lie elsewhere.
            layer = self.modules[str(node.target)]
            assert isinstance(layer, WeightedLayer)
            return layer.weight.dim() != len(x) or len(node.args) + len(node.kwargs) > 1
        dims = 3 if patterns.is_one_dimensional(node, self.modules) else 4
        if kind in ("avg_pool", "adaptive_avg_pool") and len(x) != dims:
            return True
        if kind == "move" and node.target is operator.getitem:
            return node.args[0] not in self.grids
        inputs: list[tuple[int, ...]] = [x]
        window: dict[str, Any] = {}
        if kind in ("add", "mul", "arithmetic"):
            tensors = [t for t in node.args if isinstance(t, fx.Node) and not _is_plain_number(t)]
            if not self._are_computed(tensors):
                return True  # a parameter or buffer
            if kind == "arithmetic" and len(tensors) == 2:
                return True
            inputs = [patterns.shape_of(t) or () for t in tensors]
        elif kind == "avg_pool":
            pool = self._average_pool(node)
            if pool.divisor_override is not None:
                return True
            window = {name: pair(getattr(pool, f"{name}_size" if name == "kernel" else name)) for name in _WINDOW}
            window["count_include_pad"] = pool.count_include_pad
        return not _C.graph.has_integer_form(kind, inputs, patterns.shape_of(node) or (), **window)

    def _are_computed(self, tensors: Iterable[fx.Node]) -> bool:
        """Whether all of them depend on the input."""
        return all(t in self.grids or t in self.floats for t in tensors)

    def _depends_on_input(self, node: fx.Node) -> bool:
        """Whether `node` reads what depends on the input; what does not is a constant and stays as it is."""
        return any(x in self.grids or x in self.floats for x in node.all_input_nodes)

    def _name_of(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return str(node.target)
        what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return ".".join(part for part in (operations.home(node), str(what)) if part)

    def put(self, rounded: fx.Node, quantizer: ActivationQuantizer, node: fx.Node, last: fx.Node) -> None:
        """Puts `rounded`, on the grid of `quantizer`, in the place of the nodes from `node` to `last`."""
        rounded.meta = dict(node.meta)
        self.finish(rounded, quantizer)
        self._replace(last, rounded)
        if last is not node:
            self._replace(node, rounded)

    def _bring_onto_grids(self, node: fx.Node) -> None:
        """Rounds what `node` reads in float; several readers of a tensor share the quantiser."""
        for x in node.all_input_nodes:
            if x not in self.floats:
                continue
            rounded = self.floats[x]
            if rounded is None:
                path, quantizer = self.new_quantizer(*_border(x), "border")
                with self.graph.inserting_after(x):
                    rounded = self.graph.call_module(path, (x,))
                rounded.meta = dict(x.meta)
                self.floats[x] = rounded
                self.finish(rounded, quantizer)
            node.replace_input_with(x, rounded)

    # --- checks and passes over the whole graph -------------------------------------------------------------------

    def _resolve_overwrites(self) -> None:
        """After an operation in place, later readers of its input read the result."""
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in self.graph.nodes:
            if node.op in ("call_module", "call_function", "call_method") and patterns.is_in_place(node, self.modules):
                x = self.input_of(node)
                for user in list(x.users):
                    if order[user] > order[node]:
                        user.replace_input_with(x, node)

    def _part_shared_layers(self) -> None:
        """A layer that is used again gets a twin there, with the same parameters: each use needs a grid of its own."""
        seen: set[nn.Module] = set()
        for node in self.graph.nodes:
            if self._kind(node) in ("conv", "linear", "batch_norm") and node.op == "call_module":
                module = self.modules[str(node.target)]
                if module in seen:
                    twin = copy.copy(module)
                    for name in ("_parameters", "_buffers", "_modules"):
                        twin.__dict__[name] = dict(module.__dict__[name])
                    parent, _, name = str(node.target).rpartition(".")
                    node.target = self.add_module(parent, f"{name}_again", twin)
                seen.add(module)

    def _check_layer(self, node: fx.Node, layer: nn.Module) -> None:
        if layer._forward_hooks or layer._forward_pre_hooks or hasattr(layer, "parametrizations"):
            self.refuse(
                node,
                "it has hooks or parametrizations, which would be lost",
                "remove them first (torch.nn.utils.prune.remove, torch.nn.utils.parametrize.remove_parametrizations)",
            )

    def _check_batch_norm(self, node: fx.Node, norm: nn.Module) -> None:
        if not isinstance(norm, BATCH_NORMS) or norm.running_mean is None:
            self.refuse(node, "expected running statistics", "set track_running_stats=True")

    def _check_output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or not (result in self.grids or result in self.floats):
            self.refuse(node, "expected the model to return one tensor", "wrap it in a module that returns one")

    def _drop_unused_sizes(self) -> None:
        for node in reversed(list(self.graph.nodes)):
            if not node.users and node.op != "output" and _is_plain_number(node):
                self.graph.erase_node(node)


def _border(x: fx.Node) -> tuple[str, str]:
    """Where the quantiser of a tensor in float goes: the module it is added to, and its name there."""
    return ("", "input_fake_quantize") if x.op == "placeholder" else (operations.home(x), "border_fake_quantize")


def _is_plain_number(node: fx.Node) -> bool:
    """Whether `node` yields no tensor but a size, a number or the like."""
    plain = (int, float, bool, str, torch.Size, torch.dtype, torch.device, type(None))
    kind = node.meta.get("type")
    return node.op in ("call_function", "call_method") and isinstance(kind, type) and issubclass(kind, plain)
