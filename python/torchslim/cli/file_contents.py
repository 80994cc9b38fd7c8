# SPDX-License-Identifier: BSD-3-Clause
"""What is inside a file, read without running it."""

import io
import pickle
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torchslim import deploy


@dataclass(frozen=True)
class Contents:
    """Operations with how often they run, and named parts with their bytes."""

    operations: Counter[str] = field(default_factory=Counter)
    parts: dict[str, int] = field(default_factory=dict)


def read_ptl(path: str) -> Contents:
    """Reads the bytecode and the archive's entries of a `.ptl` file; every entry is compared with its checksum."""
    deploy.PtlModel(path)  # whole, unchanged, and such a file
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        functions = _Bytecode(io.BytesIO(archive.read(entries["bytecode.pkl"]))).load()[1:]
    operations: Counter[str] = Counter()
    for function in functions:
        code: dict[str, Any] = dict(function[1])
        for instruction, index, _ in code["instructions"]:
            if instruction in ("OP", "OPN"):
                operations[".".join(filter(None, code["operators"][index][:2]))] += 1
    return Contents(operations, {name: entry.compress_size for name, entry in entries.items()})


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


class _Bytecode(pickle.Unpickler):
    """Builds tuples, numbers, strings and lists, and nothing else: a pickle can name no code that would run."""

    def find_class(self, module: str, name: str) -> type[list[Any]]:
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist", "build_boollist"):
            return list
        raise pickle.UnpicklingError(f"the bytecode names {module}.{name}, which no PyTorch Mobile file does")
