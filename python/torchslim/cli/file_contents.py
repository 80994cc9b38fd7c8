# SPDX-License-Identifier: BSD-3-Clause
"""What is inside a file, read without running it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torchslim import deploy

_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Part:
    """A layer, with its operation and the shape of its weight where the file tells them; or a record of an archive."""

    bytes: int
    name: str
    op: str = ""
    weight: tuple[int, ...] = ()


@dataclass(frozen=True)
class Contents:
    """Operations with how often they run, and parts with their bytes."""

    operations: Counter[str] = field(default_factory=Counter)
    parts: list[Part] = field(default_factory=list)
    records: int = 0  #: of a `.ptl` file's archive


def read_contents(path: str, manifest: dict[str, Any]) -> Contents:
    """Reads what a file of any kind tells; nothing of it is built.

    Args:
        path: of the file.
        manifest: of the file; {} if it has none.
    """
    if path.endswith(".onnx"):
        return _read_onnx(path)
    layers = [Part(bytes, layer, op, tuple(weight)) for layer, op, weight, bytes in manifest.get("layers", [])]
    if not path.endswith(".ptl"):
        return Contents(parts=layers)
    report = deploy.check(path)
    operations = Counter({op.name: op.calls for op in report.operators})
    parts = layers or [Part(record.bytes, record.name) for record in report.records]
    return Contents(operations, parts, len(report.records))


def _read_onnx(path: str) -> Contents:
    """Reads the nodes of an `.onnx` file, and its tensors layer by layer."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f"to look into .onnx files install the extra: pip install 'torchslim[export]' ({error})"
        ) from error
    graph = onnx.load(path).graph
    names = {node.output[0].rpartition("/")[0]: node.op_type for node in reversed(graph.node) if _computes(node)}
    sizes: Counter[str] = Counter()
    weights: dict[str, tuple[int, ...]] = {}
    for tensor in graph.initializer:
        layer = tensor.name.rpartition("/")[0]
        sizes[layer] += tensor.ByteSize()
        weights[layer] = max(weights.get(layer, ()), tuple(tensor.dims), key=lambda dims: (len(dims), dims))
    parts = [
        Part(size, layer or "(the network itself)", names.get(layer, "") if layer else "", weights[layer])
        for layer, size in sizes.items()
    ]
    return Contents(Counter(node.op_type for node in graph.node), parts)


def _computes(node: Any) -> bool:  # noqa: ANN401
    return node.output and node.op_type not in _ROUNDING
