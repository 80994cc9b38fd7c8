# SPDX-License-Identifier: BSD-3-Clause
"""Files for ExecuTorch, lowered to XNNPACK. Written from Python alone, as ExecuTorch's own exporter is."""

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchslim import _C
from torchslim.deploy.lower import IntegerGraph, IntegerNode, lower
from torchslim.deploy.run_pte import MANIFEST
from torchslim.graph import Graph, fold_batch_norms
from torchslim.graph.run_node import avg_pool, max_pool, run_node, weighted

_WHO = "torchslim.deploy.save"
#: What must not be left outside of XNNPACK: all the work of a network.
_HEAVY = ("convolution", "addmm", "linear")


def write_pte(
    graph: Graph | IntegerGraph,
    path: str | os.PathLike[str],
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    labels: Sequence[str] = (),
) -> tuple[bytes, str, int]:
    """Return the bytes of the `.pte` file of a captured or lowered graph, its kind, and how many parts XNNPACK runs.

    The method `torchslim` of the file returns its manifest, as text.

    Raises:
        ImportError: executorch is not installed.
        ValueError: an operation cannot be exported, or a convolution or linear layer would not run in XNNPACK.
    """
    lowering = _executorch()
    quantised = isinstance(graph, IntegerGraph) or any(
        node.kind == "fake_quantize" or node.weight_grid is not None for node in graph.nodes
    )
    if quantised:
        integers = graph if isinstance(graph, IntegerGraph) else lower(graph)
        _C.deploy.require_fit(integers, "xnnpack", _WHO)
        module: _Network = _IntegerNetwork(integers)
        manifest = _C.deploy.pte_manifest(integers, mean, std, labels)
    else:
        assert isinstance(graph, Graph)
        folded = fold_batch_norms(graph)
        module = _FloatNetwork(folded)
        manifest = _C.deploy.pte_manifest(folded, mean, std, labels)
    content, delegates = lowering(module.register(), torch.zeros(module.shape), manifest, os.fspath(path))
    return content, "int8" if quantised else "float", delegates


def _executorch() -> Callable[[nn.Module, Tensor, str, str], tuple[bytes, int]]:
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise ImportError(
            f"{_WHO}: .pte files need ExecuTorch; install the extra: pip install 'torchslim[export]' ({error})"
        ) from error

    def lowered(module: nn.Module, example: Tensor, manifest: str, path: str) -> tuple[bytes, int]:
        try:
            program = torch.export.export(module, (example,), strict=False)
            edge = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods={MANIFEST: manifest}
            )
        except Exception as error:  # of whatever class: the exporter's own
            what = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"{_WHO}: {path} was not written: ExecuTorch does not take the network ({what[0]}); "
                "save a .ptl or .onnx file, or leave the operation out"
            ) from error
        outside, delegates = [], 0
        for node in edge.exported_program().graph.nodes:
            name = getattr(node.target, "__name__", str(node.target))
            delegates += "executorch_call_delegate" in name
            if node.op == "call_function" and any(heavy in name for heavy in _HEAVY):
                outside.append(name)
        if outside:
            raise ValueError(
                f"{_WHO}: {path} was not written: XNNPACK does not take {len(outside)} of its layers "
                f"({', '.join(sorted(set(outside)))}); save a .ptl or .onnx file, or leave such layers out"
            )
        return bytes(edge.to_executorch().buffer), delegates

    return lowered


class _Network(nn.Module):
    """A module that registers each tensor as a buffer when it first meets it, in a run before the export."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self._names: dict[int, str] = {}
        self._met: list[Tensor] = []  # kept, so that an id stays one tensor's
        self.shape = shape

    def register(self) -> "_Network":
        with torch.no_grad():
            self(torch.zeros(self.shape))
        return self.eval()

    def held(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._names:
            self._names[id(tensor)] = f"tensor_{len(self._names)}"
            self._met.append(tensor)
            # A copy: parts of one tensor, as of an attention layer's projections, would be taken for one another.
            self.register_buffer(self._names[id(tensor)], tensor.detach().clone(memory_format=torch.contiguous_format))
        held: Tensor = getattr(self, self._names[id(tensor)])
        return held


class _FloatNetwork(_Network):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.nodes[0].shape)
        self._nodes = graph.nodes

    def forward(self, x: Tensor) -> Tensor:
        values: list[Tensor] = []
        for node in self._nodes:
            inputs = [values[i] for i in node.inputs]
            values.append(run_node(node, inputs, self.held) if inputs else x)
        return values[-1]


class _IntegerNetwork(_Network):
    """An integer graph as float operations between the quantisers that ExecuTorch knows."""

    def __init__(self, graph: IntegerGraph) -> None:
        super().__init__(graph.nodes[0].shape)
        self._nodes = graph.nodes
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}  # of each layer: codes as torch takes them, zero points
        self._known_tables: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        values: list[Tensor] = []  # codes, or floats where a node gives them
        for index, node in enumerate(self._nodes):
            inputs = [self._floats(i, values) for i in node.inputs]
            if not node.inputs:
                values.append(x if node.gives_floats else self._rounded(node, x))
            elif node.gives_floats:
                assert node.float_node is not None
                values.append(run_node(node.float_node, inputs, self.held))
            else:
                values.append(self._rounded(node, self._computed(index, node, inputs)))
        return self._floats(len(values) - 1, values)

    def _floats(self, index: int, values: list[Tensor]) -> Tensor:
        node = self._nodes[index]
        if node.gives_floats:
            return values[index]
        dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
        floats: Tensor = dequantize(values[index], node.scale, node.zero_point, -128, 127, torch.int8)
        return floats

    def _rounded(self, node: IntegerNode, floats: Tensor) -> Tensor:
        quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
        codes: Tensor = quantize(self._bounded(node, floats), node.scale, node.zero_point, -128, 127, torch.int8)
        return codes

    def _bounded(self, node: IntegerNode, floats: Tensor) -> Tensor:
        below, above = node.clamp_min > -128, node.clamp_max < 127
        keeps = node.inputs and all(
            not self._nodes[i].gives_floats
            and self._nodes[i].scale == node.scale
            and self._nodes[i].zero_point == node.zero_point
            and self._nodes[i].clamp_min >= node.clamp_min
            and self._nodes[i].clamp_max <= node.clamp_max
            for i in node.inputs
        )
        if keeps and node.op in ("max_pool2d", "avg_pool2d", "global_avg_pool", "flatten", "move"):
            return floats
        if below and not above and node.clamp_min == node.zero_point:
            return F.relu(floats)
        low, high = (node.scale * (code - node.zero_point) for code in (node.clamp_min, node.clamp_max))
        return F.hardtanh(floats, low, high) if below or above else floats

    def _computed(self, index: int, node: IntegerNode, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if node.codes is not None:
            return self._weighted(index, node, x)
        if node.op == "table" and node.float_node is None:
            self._check_table(index, node)
            return x
        if node.float_node is not None:
            return run_node(node.float_node, inputs, self.held)
        simple: dict[str, Callable[[], Tensor]] = {
            "add": lambda: x + inputs[1],
            "mul": lambda: x * inputs[1],
            "clamp": lambda: x,
            "quantize": lambda: x,
            "max_pool2d": lambda: max_pool(x, node.window),
            "avg_pool2d": lambda: avg_pool(x, node.window),
            "global_avg_pool": lambda: x.mean([2, 3], keepdim=True),
            "flatten": lambda: torch.flatten(x, 1),
        }
        return simple[node.op]()

    def _check_table(self, index: int, node: IntegerNode) -> None:
        """The same value on another grid; the function of another table is not known any more."""
        if index in self._known_tables:  # an export cannot look into tensors
            return
        before = self._nodes[node.inputs[0]]
        codes = torch.arange(-128, 128)
        steps = torch.round((codes - before.zero_point).float() * before.scale * (1.0 / node.scale))
        same = (steps + node.zero_point).clamp(node.clamp_min, node.clamp_max).to(torch.int8)
        if node.table is None or (same - node.table).abs().max() > 1:
            raise ValueError(
                f"{_WHO}: layer {node.layer!r}: an unpickled model has only a table of this function; "
                "save the prepared model, or a .ptl or .onnx file"
            )
        self._known_tables.add(index)

    def _weighted(self, index: int, node: IntegerNode, x: Tensor) -> Tensor:
        assert node.codes is not None and node.weight_scale is not None and node.bias is not None
        axis = 0
        if index not in self._weights:
            codes = node.codes
            if "transpose" in node.op:
                codes = codes.transpose(0, 1).contiguous()
            self._weights[index] = codes, torch.zeros(node.weight_scale.numel(), dtype=torch.int64)
        if "transpose" in node.op:
            axis = 1
        codes, zero_points = self._weights[index]
        dequantize = torch.ops.quantized_decomposed.dequantize_per_channel.default
        scale = self.held(node.weight_scale)
        weight = dequantize(self.held(codes), scale, self.held(zero_points), axis, -127, 127, torch.int8)
        return weighted(node.op, x, weight, self.held(node.bias), node.window)
