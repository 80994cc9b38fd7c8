# SPDX-License-Identifier: BSD-3-Clause
"""Puts quantisers into a traced graph: how each operation becomes its int8 form."""

import itertools
import operator
from typing import Any, NoReturn, TypeVar

import torch
import torch.nn.functional as F
from torch import fx, nn

from torchslim.quant import patterns
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.layers import BATCH_NORMS, QuantAveragePool, QuantConv2d, QuantLinear, SharedFakeQuantize
from torchslim.quant.observers import Observer

#: How messages name the call that the user made.
WHO = "torchslim.quant.prepare"

_SUPPORTED = (
    "Conv2d, Linear, BatchNorm2d behind a convolution, ReLU, ReLU6, addition of two tensors, max and average "
    "pools, global average pool, flatten, dropout"
)
_Pool = TypeVar("_Pool", nn.AvgPool2d, nn.MaxPool2d)
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


class Rewriter:
    """Turns a traced graph into that of the prepared model, and the modules of `root` with it.

    Walks the operations in order. `grids` holds, for each tensor that is done, the quantiser whose grid it is on.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, observer: Observer) -> None:
        """Takes the traced model, whose modules it will replace, and its graph with the shapes of an example."""
        self.observer = observer
        self.root = root
        self.graph = graph
        self.modules = dict(root.named_modules(remove_duplicate=False))
        self.grids: dict[fx.Node, FakeQuantize] = {}
        self.done: set[fx.Node] = set()

    def run(self) -> None:
        """Rewrites the whole graph, or raises at the first operation that int8 lacks."""
        self._resolve_overwrites()
        for node in [n for n in self.graph.nodes if self._kind(n) == "identity"]:
            self._replace(node, self._input(node))
        self._check_single_use()
        for node in list(self.graph.nodes):
            if node not in self.done:
                self._rewrite(node)
        self._drop_unused_sizes()

    def _rewrite(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._place_input(node)
        elif node.op == "output":
            self._check_output(node)
        elif not _is_plain_number(node):
            handler = getattr(self, "_do_" + (self._kind(node) or "unknown"))
            handler(node)

    # --- operations, in the order of the table in patterns.py -----------------------------------------------------

    def _place_input(self, node: fx.Node) -> None:
        quantizer = FakeQuantize(self.observer)
        path = self._add_module("", "input_fake_quantize", quantizer)
        with self.graph.inserting_after(node):
            rounded = self.graph.call_module(path)
        node.replace_all_uses_with(rounded)
        rounded.args = (node,)
        rounded.meta = dict(node.meta)
        self._finish(rounded, quantizer)

    def _do_conv(self, node: fx.Node) -> None:
        conv = self.modules[str(node.target)]
        assert isinstance(conv, nn.Conv2d)
        self._check_layer(node, conv)
        last, norm = node, None
        follower = self._only_user(node)
        if follower is not None and self._kind(follower) == "batch_norm":
            norm = self.modules[str(follower.target)]
            self._check_batch_norm(follower, norm)
            last = follower
        activation, last = self._activation_after(last)
        try:
            layer = QuantConv2d(conv, self._grid(node), norm, activation, self.observer, str(node.target))
        except ValueError as error:
            raise ValueError(f"{WHO}: {error}") from None
        self._join(node, last, layer)

    def _do_linear(self, node: fx.Node) -> None:
        linear = self.modules[str(node.target)]
        assert isinstance(linear, nn.Linear)
        self._check_layer(node, linear)
        shape = self._shape(self._input(node))
        if len(shape) != 2:
            self._refuse(node, f"expected an input (N, features), got shape {shape}", "flatten it first")
        activation, last = self._activation_after(node)
        self._join(node, last, QuantLinear(linear, self._grid(node), activation, self.observer, str(node.target)))

    def _do_batch_norm(self, node: fx.Node) -> None:
        self._refuse(
            node,
            "it does not follow a convolution that nothing else reads, so it cannot be folded",
            "put it directly behind a convolution, or remove it",
        )

    def _do_relu(self, node: fx.Node) -> None:
        with self.graph.inserting_before(node):
            result = self.graph.call_function(torch.relu, (self._input(node),))
        self._substitute(node, result)

    def _do_relu6(self, node: fx.Node) -> None:
        path = self._add_module(_home(node), "relu6_fake_quantize", SharedFakeQuantize(self._grid(node)))
        with self.graph.inserting_before(node):
            clamped = self.graph.call_function(F.relu6, (self._input(node),))
            rounded = self.graph.call_module(path, (clamped,))
        self._substitute(node, rounded)

    def _do_add(self, node: fx.Node) -> None:
        terms = [*node.args, *(node.kwargs[k] for k in ("input", "other") if k in node.kwargs)]
        if len(terms) != 2 or not all(isinstance(t, fx.Node) and t in self.grids for t in terms):
            self._refuse(node, "expected two tensors that both depend on the input", "put constants into a bias")
        if node.kwargs.get("alpha", 1) != 1:
            self._refuse(node, f"expected alpha 1, got {node.kwargs['alpha']}", "scale in a layer of its own")
        left, right = (self._shape(t) for t in terms if isinstance(t, fx.Node))
        if left != right:
            self._refuse(node, f"expected equal shapes, got {left} and {right}", "broadcasting cannot run in int8")
        activation, last = self._activation_after(node)
        quantizer = FakeQuantize(self.observer, activation=activation)
        path = self._add_module(_home(node), "add_fake_quantize", quantizer)
        with self.graph.inserting_before(node):
            total = self.graph.call_function(operator.add, tuple(terms))
            rounded = self.graph.call_module(path, (total,))
        rounded.meta = dict(node.meta)
        self._finish(rounded, quantizer)
        self._replace(last, rounded)
        if last is not node:
            self._replace(node, rounded)

    def _do_adaptive_avg_pool(self, node: fx.Node) -> None:
        if self._shape(node)[-2:] != (1, 1):
            self._refuse(
                node, f"expected an average to 1×1, got {self._shape(node)[-2:]}", "use AvgPool2d with a fixed window"
            )
        self._average(node, keep_dims=True)

    def _do_mean(self, node: fx.Node) -> None:
        if not patterns.is_spatial_mean(node) or len(self._shape(self._input(node))) != 4:
            self._refuse(node, "expected a mean over height and width, dim=(2, 3)", "use AdaptiveAvgPool2d(1)")
        self._average(node, keep_dims=len(self._shape(node)) == 4)

    def _average(self, node: fx.Node, keep_dims: bool) -> None:
        module = QuantAveragePool(self._grid(node))
        if keep_dims:
            self._call_new_module(node, "global_avg_pool", module)
            return
        path = self._add_module(_home(node), "global_avg_pool", module)
        with self.graph.inserting_before(node):
            pooled = self.graph.call_module(path, (self._input(node),))
            flat = self.graph.call_function(torch.flatten, (pooled, 1))
        self._substitute(node, flat)

    def _do_avg_pool(self, node: fx.Node) -> None:
        pool = self._as_module(node, nn.AvgPool2d, _AVG_POOL)
        if pool.divisor_override is not None:
            self._refuse(node, "expected no divisor_override", "use the size of the window")
        if pool.ceil_mode:
            self._refuse(node, "expected ceil_mode False", "choose a window that fits")
        if not pool.count_include_pad and pool.padding not in (0, (0, 0)):
            self._refuse(node, "expected count_include_pad True", "integer runtimes count the padding")
        self._call_new_module(node, "avg_pool", QuantAveragePool(self._grid(node), pool))

    def _do_max_pool(self, node: fx.Node) -> None:
        pool = self._as_module(node, nn.MaxPool2d, _MAX_POOL)
        if pool.return_indices:
            self._refuse(node, "expected return_indices False", "unpooling cannot run in int8")
        if node.op == "call_module":
            self._finish(node, self._grid(node))
        else:
            self._call_new_module(node, "max_pool", pool)

    def _do_flatten(self, node: fx.Node) -> None:
        before, after = self._shape(self._input(node)), self._shape(node)
        if before == after:
            self._replace(node, self._input(node))
            return
        if not patterns.is_flattening(before, after):
            self._refuse(
                node, f"expected (N, ...) -> (N, features), got {before} -> {after}", "use torch.flatten(x, 1)"
            )
        with self.graph.inserting_before(node):
            flat = self.graph.call_function(torch.flatten, (self._input(node), 1))
        self._substitute(node, flat)

    def _do_dropout(self, node: fx.Node) -> None:
        if node.op == "call_module":
            dropout = self.modules[str(node.target)]
            dropout.__dict__["inplace"] = False
            self._finish(node, self._grid(node))
            return
        if self._argument(node, "training", 2, True) is False:
            self._replace(node, self._input(node))
            return
        kind = nn.Dropout2d if node.target is F.dropout2d else nn.Dropout
        module = kind(float(self._argument(node, "p", 1, 0.5))).train(self.root.training)
        self._call_new_module(node, "dropout", module)

    def _do_concat(self, node: fx.Node) -> None:
        self._refuse(node, "concatenation is not available in int8 yet", "add the tensors, or keep this model in float")

    def _do_unknown(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            self._refuse(node, "a parameter or buffer is used outside a layer", "use a layer that holds it")
        if node.target in (F.conv2d, torch.conv2d, F.linear):
            self._refuse(node, "its weight is not held by a layer", "use torch.nn.Conv2d or torch.nn.Linear")
        self._refuse(node, "it cannot run in int8", f"int8 has {_SUPPORTED}; apply others outside the model")

    # --- what the operations above share --------------------------------------------------------------------------

    def _kind(self, node: fx.Node) -> str:
        return patterns.kind_of(node, self.modules)

    def _argument(self, node: fx.Node, name: str, position: int, default: object) -> Any:  # noqa: ANN401
        return patterns.argument(node, self.modules, name, position, default)

    def _refuse(self, node: fx.Node, why: str, remedy: str) -> NoReturn:
        raise ValueError(f"{WHO}: {patterns.describe(node, self.modules)}: {why}; {remedy}")

    def _input(self, node: fx.Node) -> fx.Node:
        x = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(x, fx.Node):
            self._refuse(node, "expected a tensor that depends on the input", "compute constants outside forward")
        return x

    def _grid(self, node: fx.Node) -> FakeQuantize:
        x = self._input(node)
        if x not in self.grids:
            self._refuse(node, "its input is not an image or activation", "feed it what depends on the input")
        return self.grids[x]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        shape = patterns.shape_of(node)
        if shape is None:
            self._refuse(node, "expected it to give one tensor", f"int8 has {_SUPPORTED}")
        return shape

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        users = list(node.users)
        return users[0] if len(users) == 1 else None

    def _activation_after(self, node: fx.Node) -> tuple[str, fx.Node]:
        """The activation that alone reads `node`, and the node that is the result of both."""
        follower = self._only_user(node)
        if follower is not None and self._kind(follower) in ("relu", "relu6"):
            return self._kind(follower), follower
        return "none", node

    def _join(self, node: fx.Node, last: fx.Node, layer: QuantConv2d | QuantLinear) -> None:
        """Puts `layer` in the place of the module of `node`, and of all nodes up to `last`."""
        path = str(node.target)
        parent, _, name = path.rpartition(".")
        self.modules[parent]._modules[name] = layer
        self.modules[path] = layer
        x = self._input(node)
        while last is not node:
            before = self._input(last)
            last.replace_all_uses_with(before)
            self._erase(last)
            last = before
        node.args, node.kwargs = (x,), {}
        self._finish(node, layer.output_fake_quantize)

    def _as_module(self, node: fx.Node, kind: type[_Pool], names: tuple[str, ...]) -> _Pool:
        """The pool of a module form, or one made of a function's arguments."""
        if node.op == "call_module":
            pool = self.modules[str(node.target)]
            assert isinstance(pool, kind)
            return pool
        given: dict[str, Any] = dict(zip(names, node.args[1:], strict=False)) | {
            n: v for n, v in node.kwargs.items() if n in names
        }
        return kind(**given)

    def _call_new_module(self, node: fx.Node, name: str, module: nn.Module) -> None:
        """Puts a call of `module` in the place of `node`, added as `name` where `node` is written down."""
        path = self._add_module(_home(node), name, module)
        with self.graph.inserting_before(node):
            result = self.graph.call_module(path, (self._input(node),))
        self._substitute(node, result)

    def _substitute(self, node: fx.Node, result: fx.Node) -> None:
        """Puts `result` in the place of `node`, on the grid of its input."""
        result.meta = dict(node.meta)
        self._finish(result, self._grid(node))
        self._replace(node, result)

    def _finish(self, node: fx.Node, grid: FakeQuantize) -> None:
        self.grids[node] = grid
        self.done.add(node)

    def _replace(self, node: fx.Node, by: fx.Node) -> None:
        node.replace_all_uses_with(by)
        self._erase(node)

    def _erase(self, node: fx.Node) -> None:
        self.graph.erase_node(node)
        self.done.add(node)

    def _add_module(self, parent: str, name: str, module: nn.Module) -> str:
        """Adds `module` to the module at `parent`, as `name` or the first free of name_1, name_2, ..."""
        owner = self.modules[parent]
        free = next(
            n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1))) if not hasattr(owner, n)
        )
        owner.add_module(free, module.train(self.root.training))
        path = f"{parent}.{free}" if parent else free
        self.modules[path] = module
        return path

    # --- checks and passes over the whole graph -------------------------------------------------------------------

    def _resolve_overwrites(self) -> None:
        """After an operation in place, later readers of its input read the result."""
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in self.graph.nodes:
            if node.op in ("call_module", "call_function", "call_method") and patterns.is_in_place(node, self.modules):
                x = self._input(node)
                for user in list(x.users):
                    if order[user] > order[node]:
                        user.replace_input_with(x, node)

    def _check_single_use(self) -> None:
        seen: set[nn.Module] = set()
        for node in self.graph.nodes:
            if self._kind(node) in ("conv", "linear", "batch_norm") and node.op == "call_module":
                module = self.modules[str(node.target)]
                if module in seen:
                    self._refuse(node, "the layer is used twice, and would need two grids", "make two layers of it")
                seen.add(module)

    def _check_layer(self, node: fx.Node, layer: nn.Module) -> None:
        if layer._forward_hooks or layer._forward_pre_hooks or hasattr(layer, "parametrizations"):
            self._refuse(
                node,
                "it has hooks or parametrizations, which would be lost",
                "remove them first (torch.nn.utils.prune.remove, torch.nn.utils.parametrize.remove_parametrizations)",
            )

    def _check_batch_norm(self, node: fx.Node, norm: nn.Module) -> None:
        if not isinstance(norm, BATCH_NORMS) or norm.running_mean is None:
            self._refuse(node, "expected running statistics", "set track_running_stats=True")

    def _check_output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or result not in self.grids:
            self._refuse(node, "expected the model to return one tensor", "wrap it in a module that returns one")

    def _drop_unused_sizes(self) -> None:
        for node in reversed(list(self.graph.nodes)):
            if not node.users and node.op != "output" and _is_plain_number(node):
                self.graph.erase_node(node)


def _home(node: fx.Node) -> str:
    """The dotted name of the module whose forward writes `node` down."""
    layer = patterns.layer_of(node)
    return layer.rpartition(".")[0] if node.op == "call_module" else layer


def _is_plain_number(node: fx.Node) -> bool:
    """Whether `node` yields no tensor but a size, a number or the like."""
    plain = (int, float, bool, str, torch.Size, torch.dtype, torch.device, type(None))
    kind = node.meta.get("type")
    return node.op in ("call_function", "call_method") and isinstance(kind, type) and issubclass(kind, plain)
