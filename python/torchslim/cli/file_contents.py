# SPDX-License-Identifier: BSD-3-Clause
"""What is inside a file, read without running it."""

from collections import Counter
from dataclasses import dataclass, field

from torchslim import deploy


@dataclass(frozen=True)
class Contents:
    """Operations with how often they run, and named parts with their bytes."""

    operations: Counter[str] = field(default_factory=Counter)
    parts: dict[str, int] = field(default_factory=dict)


def read_ptl(path: str) -> Contents:
    """Reads the operators that a `.ptl` file calls and the parts of its archive; nothing of it is built."""
    report = deploy.check(path)
    operations = Counter({op.name: op.calls for op in report.operators})
    return Contents(operations, {record.name: record.bytes for record in report.records})


def read_onnx(path: str) -> Contents:
    """Reads the nodes of an `.onnx` file, and the bytes of its tensors layer by layer."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f"to look into .onnx files install the extra: pip install 'torchslim[export]' ({error})"
        ) from error
    graph = onnx.load(path).graph
    parts: Counter[str] = Counter()
    for tensor in graph.initializer:
        parts[tensor.name.rpartition("/")[0] or "(the network itself)"] += tensor.ByteSize()
    return Contents(Counter(node.op_type for node in graph.node), dict(parts))
