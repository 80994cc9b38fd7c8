# SPDX-License-Identifier: BSD-3-Clause
"""Cross-layer equalisation: the same function in floats, with channels that share a grid better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from torchslim import _C
from torchslim.graph.capture import capture


class EqualizedPair(NamedTuple):
    """Two layers between which the ranges of channels were moved, or the reason why not."""

    #: The layer whose output channels were divided by `scale`.
    first: str
    #: The one whose input channels were multiplied; empty if the pair was refused.
    second: str
    #: float32 (C), or None if the pair was refused.
    scale: Tensor | None
    #: Why it was refused; empty if it was not.
    reason: str


def equalize(
    model: nn.Module, example_inputs: Tensor | Sequence[Tensor], *, replace_relu6: bool = False
) -> list[EqualizedPair]:
    """Makes the weights of each channel equally large in two layers that follow each other, in place.

    The float model computes the same, up to float rounding. Between two convolutions or linear layers W1, W2, with
    nothing that other layers read and only batch norm, ReLU, pools and flatten in between:
    s_i = √(r1_i·r2_i) / r2_i, W1 row i / s_i, bias i / s_i, W2 column i · s_i, where r1_i is the largest |w| of the
    i-th output channel of W1 and r2_i that of the i-th input channel of W2, with batch norms in them. Where a batch
    norm stands behind the first layer, its gamma and beta are divided instead. Pairs are gone through until nothing
    moves, so that convolution, depthwise convolution and convolution all get the same ranges. Nagel et al. 2019,
    arXiv:1906.04721, eq. 9-12.

    Args:
        model: a float model, one image batch in, one tensor out; changed in place. Call this before `prepare`.
        example_inputs: a float32 batch (N, ...), or a tuple that holds it.
        replace_relu6: makes every module that is a ReLU6 (or Hardtanh from 0 to 6) a ReLU first: a ReLU6 does not
            commute with factors. That changes what the model computes where it reached 6.

    Returns:
        the pairs in the order of the network; a layer whose result goes elsewhere is listed with the reason.

    Raises:
        ValueError: the model is prepared, or `graph.capture` refuses it; nothing is changed.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> [(pair.first, pair.second, pair.reason) for pair in equalize(net, torch.zeros(1, 2))]
        [('0', '2', ''), ('2', '', "it is the network's result")]
    """
    graph = capture(model, example_inputs)
    if replace_relu6 and not any(node.kind == "fake_quantize" for node in graph.nodes):
        _replace_relu6(model)
        graph = capture(model, example_inputs)
    return [EqualizedPair(*row) for row in _C.quant.equalize(graph)]


def _replace_relu6(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Hardtanh) and (child.min_val, child.max_val) == (0, 6):  # a ReLU6 is one too
                setattr(module, name, nn.ReLU(child.inplace).train(child.training))
