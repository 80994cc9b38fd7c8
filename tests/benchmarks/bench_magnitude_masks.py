# SPDX-License-Identifier: BSD-3-Clause
"""Magnitude masks of 25 million weights in 60 tensors against sorting their concatenation."""

import torch
from harness import Case

import torchslim as ts

COUNT, SIZE, SPARSITY = 60, 25_000_000 // 60, 0.5


def cases(threads: int) -> list[Case]:
    """One case: the masks against `topk` on the concatenated magnitudes, which is what `torch.nn.utils.prune` does."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(SIZE, generator=generator) for _ in range(COUNT)]

    def by_topk() -> list[torch.Tensor]:
        magnitudes = torch.cat([tensor.abs().flatten() for tensor in tensors])
        _, pruned = torch.topk(magnitudes, round(len(magnitudes) * SPARSITY), largest=False)
        keep = torch.ones(len(magnitudes), dtype=torch.bool)
        keep[pruned] = False
        return list(keep.split(SIZE))

    return [
        Case(
            name="magnitude_masks, global",
            ours=lambda: ts.prune.magnitude_masks(tensors, SPARSITY),
            peer_name="torch.topk on the concatenation",
            peer=by_topk,
            clone=lambda: [tensor.clone() for tensor in tensors],
            shape="60 x 416,666",
            least_ratio_to_peer=20.0,
        )
    ]
