# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of quantisation ops share."""

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from torchslim import _C
from torchslim.quant import (
    EntropyObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MseObserver,
    PercentileObserver,
)

Result = TypeVar("Result")

OBSERVERS = [
    MinMaxObserver,
    MovingAverageObserver,
    HistogramObserver,
    PercentileObserver,
    MseObserver,
    EntropyObserver,
]

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

#: Views of a contiguous tensor of four dimensions.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3),
    "every second": lambda x: x[:, ::2, 1:],
    "expanded": lambda x: x[:, :1].expand(-1, 4, -1, -1),
    "empty": lambda x: x[:0],
    "0-dim": lambda x: x[0, 0, 0, 0],
}


def assert_same_bits(a: Tensor, b: Tensor) -> None:
    """Equal values, signs of zero and strides; NaN where NaN."""
    assert a.dtype == b.dtype and a.shape == b.shape
    assert torch.equal(a.isnan(), b.isnan())
    a, b = a.nan_to_num(0.0, math.inf, -math.inf), b.nan_to_num(0.0, math.inf, -math.inf)
    assert torch.equal(a, b)
    assert torch.equal(a.signbit(), b.signbit())


def gradient(y: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of x for the gradient of y."""
    return torch.autograd.grad(y, x, grad, retain_graph=True)[0]


def with_instruction_sets(run: Callable[[], Result]) -> Iterator[Result]:
    """The result of `run` with the portable kernels."""
    try:
        _C.force_cpu_capability("portable")
        yield run()
    finally:
        _C.force_cpu_capability(None)


def with_threads(run: Callable[[], Result]) -> Iterator[Result]:
    """The results of `run` on one and on two threads."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            yield run()
    finally:
        torch.set_num_threads(before)


def saved_bytes(run: Callable[[], Tensor]) -> list[int]:
    """The sizes of the tensors that autograd keeps for `run`."""
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return [tensor.nbytes for tensor in saved]


def assert_compiles_whole(loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Compiled without a graph break, `loss` and its gradient have the bits that they have in eager mode."""
    eager, compiled = loss(x), torch.compile(loss, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(eager, compiled)
    assert torch.equal(gradient(eager, x, torch.ones(())), gradient(compiled, x, torch.ones(())))


def assert_keeps_the_type_under_autocast(op: Callable[[Tensor], Tensor]) -> None:
    """Neither float32 nor bfloat16 becomes another type."""
    x = torch.randn(10)
    with torch.autocast("cpu", torch.bfloat16):
        assert op(x).dtype == torch.float32
        assert op(x.bfloat16()).dtype == torch.bfloat16


def exported_ops(model: torch.nn.Module, *inputs: Tensor) -> list[object]:
    """The operators of the exported model, in order."""
    graph = torch.export.export(model, inputs).graph
    return [node.target for node in graph.nodes if node.op == "call_function"]
