# SPDX-License-Identifier: BSD-3-Clause
"""One state of the observers for all ranks of a process group."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist

from torchslim import _C
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.observers import Observer


@torch.no_grad()
def reduce_observers(module: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Gives the ranks of a process group the same ranges and grids: call it on every rank, after each step.

    In every observer in `module`, and every `FakeQuantize`, `min_val` and `max_val` become the extremes of all ranks
    (moving averages the widest), and a `histogram` counts what all ranks counted: its bits are those of one observer
    that saw all data. A `FakeQuantize` chooses its scale and zero point again. Every rank then holds the same bits.
    Called after each training step, ranges are those of one process that sees the whole batch, bit for bit; called
    once, after calibration, they are the widest.

    Args:
        module: the same on every rank, wrapped by DistributedDataParallel or `fully_shard` or not; those that have seen
            nothing yet take the others' shape.
        group: the ranks; None: all of them. Three collectives for all ranges together, two for each histogram.

    Raises:
        ValueError: no process group is there; on all ranks: their numbers of observers, shapes or bins differ, or a
            histogram does not fit its range. Nothing is then changed.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "torchslim::reduce_observers: no process group; call torch.distributed.init_process_group first"
        )
    states: list[tuple[Tensor, Tensor, Tensor | None]] = []
    for each in module.modules():
        if isinstance(each, Observer):
            states.append((each.min_val, each.max_val, each.histogram))
        elif isinstance(each, FakeQuantize):
            states.append((each.min_val, each.max_val, None))
    _C.quant.reduce_states(states, group if group is not None else dist.group.WORLD)
    for each in module.modules():  # now that the observers inside quantisers agree
        if isinstance(each, FakeQuantize):
            each.update_qparams()
