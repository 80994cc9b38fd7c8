# SPDX-License-Identifier: BSD-3-Clause
"""The captured graph as Python sees it: read-only; its tensors are the model's own."""

from typing import TYPE_CHECKING, Any

from torchslim import _C

if TYPE_CHECKING:
    from torch import Tensor

    class Grid:
        """The grid {scale·(q − zero_point) : quant_min ≤ q ≤ quant_max} in the int8 convention."""

        scale: Tensor
        zero_point: Tensor
        quant_min: int
        quant_max: int
        axis: int | None

    class Window:
        """What convolutions and pools need; heights first."""

        kernel: list[int]
        stride: list[int]
        padding: list[int]
        dilation: list[int]
        groups: int
        ceil_mode: bool
        count_include_pad: bool
        output_padding: list[int]

    class NamedTensor:
        """A tensor of the model under its name there; `name` is empty if it has none."""

        name: str
        value: Tensor | None

    class AtenCall:
        """A call of an operator of ATen's by its schema."""

        op: str
        overload: str
        arguments: list[Any]
        slots: list[int]
        batch_sizes: list[tuple[int, int]]

    class Node:
        """One operation with one result; fields that its kind does not use keep their defaults."""

        kind: str
        layer: str
        inputs: list[int]
        shape: list[int]
        window: Window
        weight: NamedTensor
        bias: NamedTensor
        running_mean: NamedTensor
        running_var: NamedTensor
        eps: float
        weight_grid: Grid | None
        grid: Grid | None
        dim: int
        call: AtenCall | None

    class Graph:
        """A network as a list of operations in the order they run: node 0 is the input, the last is the result."""

        nodes: list[Node]

        def users(self, index: int) -> list[int]:
            """Return the nodes that read node `index`, in order."""
            ...

        def to_json(self) -> str:
            """Return kinds, layers, inputs, shapes, attributes and tensor names, without tensor values."""
            ...

        def __len__(self) -> int: ...  # noqa: D105
else:
    AtenCall = _C.graph.AtenCall
    Graph = _C.graph.Graph
    Grid = _C.graph.Grid
    NamedTensor = _C.graph.NamedTensor
    Node = _C.graph.Node
    Window = _C.graph.Window

__all__ = ["AtenCall", "Graph", "Grid", "NamedTensor", "Node", "Window"]
