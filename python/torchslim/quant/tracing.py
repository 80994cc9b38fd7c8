# SPDX-License-Identifier: BSD-3-Clause
"""Traces a model to the operations that `prepare` knows, with the shapes of an example where a plain trace fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from torchslim.quant.patterns import Tracer

_EXAMPLE = "torchslim_example"


def trace(root: nn.Module, example: Tensor) -> fx.Graph:
    """Returns the graph of `root`.

    A model that loops over chunks or decides by sizes is traced with the sizes of `example`; the batch size stays free.

    Raises:
        Exception: what torch.fx raised, where neither works.
    """
    try:
        return Tracer().trace(root)
    except Exception as error:
        # A buffer's own methods take no proxies, such as buffer.expand(x.size(0), ...); decisions need its values.
        for buffers in (False, True):
            try:
                return _ShapeTracer(example, buffers).trace(root)
            except Exception:  # the first error is the one that names the user's line
                continue
        raise error from None


class _ShapeProxy(fx.Proxy):
    """A value in a trace whose sizes are numbers, but for the batch."""

    @property
    def shape(self) -> Any:  # noqa: ANN401
        return self.size()

    def size(self, dim: int | None = None) -> Any:  # noqa: ANN401
        sizes = self._tensor().shape
        if dim is not None:
            return self._batch() if dim % len(sizes) == 0 else sizes[dim]
        return (self._batch(), *sizes[1:])

    def dim(self) -> int:
        return self._tensor().dim()

    @property
    def ndim(self) -> int:
        return self._tensor().dim()

    def _batch(self) -> fx.Proxy:
        return self.tracer.create_proxy("call_method", "size", (self, 0), {})

    def _tensor(self) -> Tensor:
        value = self.node.meta[_EXAMPLE]
        if not isinstance(value, Tensor):
            raise AttributeError(f"{type(value).__name__} has no shape")
        return value


class _ShapeTracer(Tracer):
    """Runs each operation on an example while it records it."""

    def __init__(self, example: Tensor, proxy_buffers: bool) -> None:
        super().__init__()
        self.proxy_buffer_attributes = proxy_buffers
        self._example = example
        self._running = False  # an operation on the example: what it calls is no part of the trace

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:  # noqa: ANN401
        graph = super().trace(root, concrete_args)
        for node in graph.nodes:
            node.meta.pop(_EXAMPLE, None)
        return graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _ShapeProxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Proxy:  # noqa: ANN401
        result = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        self._running = True
        try:
            with torch.no_grad():
                result.node.meta[_EXAMPLE] = self._run(kind, target, result.node)
        finally:
            self._running = False
        return result

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if self._running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ANN401
        if self._running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def iter(self, obj: Any) -> Iterator[Any]:  # noqa: ANN401
        value = obj.node.meta.get(_EXAMPLE)
        if isinstance(value, (tuple, list)):
            return iter([obj[i] for i in range(len(value))])
        return super().iter(obj)

    def to_bool(self, obj: fx.Proxy) -> bool:
        value = obj.node.meta.get(_EXAMPLE)
        if isinstance(value, (bool, int, float)):
            return bool(value)
        return super().to_bool(obj)

    def _run(self, kind: str, target: Any, node: fx.Node) -> Any:  # noqa: ANN401
        def value_of(argument: fx.Node) -> Any:  # noqa: ANN401
            return argument.meta[_EXAMPLE]

        args = fx.node.map_arg(node.args, value_of)
        kwargs = fx.node.map_arg(node.kwargs, value_of)
        if kind == "placeholder":
            return self._example
        if kind == "get_attr":
            owner: Any = self.root
            for name in str(target).split("."):
                owner = getattr(owner, name)
            return owner
        if kind == "call_module":
            module = self.root.get_submodule(str(target))
            training, module.training = module.training, False
            try:
                return module.forward(*args, **kwargs)
            finally:
                module.training = training
        if kind == "call_method":
            return getattr(args[0].clone() if isinstance(args[0], Tensor) else args[0], str(target))(
                *args[1:], **kwargs
            )
        return target(*args, **kwargs)
