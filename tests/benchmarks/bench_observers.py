# SPDX-License-Identifier: BSD-3-Clause
"""Observers against torch.ao's: one batch seen, and the grid chosen from it."""

import torch
from harness import Case

import torchslim as ts

#: 0.8 M values, the activation of a small batch.
SHAPE = (16, 64, 28, 28)


def histogram_case(x: torch.Tensor) -> Case:
    """One batch whose range is known already, as nearly all batches are."""
    ours, peer = ts.quant.HistogramObserver(), torch.ao.quantization.HistogramObserver()
    ours(2 * x), peer(2 * x)
    return Case(
        name="HistogramObserver, observe",
        ours=lambda: ours(x),
        peer_name="torch.ao HistogramObserver",
        peer=lambda: peer(x),
        clone=x.clone,
        shape="16 x 64 x 28 x 28",
        least_ratio_to_peer=10.0,
    )


def histogram_qparams_case(x: torch.Tensor) -> Case:
    """The search for the range."""
    ours, peer = ts.quant.HistogramObserver(), torch.ao.quantization.HistogramObserver()
    ours(x), peer(x)
    return Case(
        name="HistogramObserver, calculate_qparams",
        ours=ours.calculate_qparams,
        peer_name="torch.ao HistogramObserver",
        peer=peer.calculate_qparams,
        clone=None,
        shape="2048 bins",
        least_ratio_to_peer=10.0,
    )


def min_max_case(x: torch.Tensor) -> Case:
    """The extremes, against ATen's kernel for them."""
    ours = ts.quant.MinMaxObserver()
    return Case(
        name="MinMaxObserver, observe",
        ours=lambda: ours(x),
        peer_name="torch.aminmax",
        peer=lambda: torch.aminmax(x),
        clone=x.clone,
        shape="16 x 64 x 28 x 28",
    )


def min_max_channels_case(x: torch.Tensor) -> Case:
    """The extremes of each channel of an activation."""
    ours, peer = ts.quant.MinMaxObserver(axis=1), torch.ao.quantization.PerChannelMinMaxObserver(ch_axis=1)
    return Case(
        name="MinMaxObserver per channel, observe",
        ours=lambda: ours(x),
        peer_name="torch.ao PerChannelMinMaxObserver",
        peer=lambda: peer(x),
        clone=x.clone,
        shape="16 x 64 x 28 x 28",
    )


def cases(threads: int) -> list[Case]:
    """A normal activation, as after a batch norm."""
    torch.manual_seed(0)
    x = torch.randn(SHAPE)
    return [histogram_case(x), histogram_qparams_case(x), min_max_case(x), min_max_channels_case(x)]
