# SPDX-License-Identifier: BSD-3-Clause
"""Zeroing what a mask prunes."""

from collections.abc import Sequence

from torch import Tensor

from torchslim import _C


def apply_masks_(tensors: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    """Sets `tensors[i]` to +0 wherever `masks[i]` is False, NaN and infinity included, in place and below autograd.

    Args:
        tensors: any floating dtype; changed.
        masks: bool, of the shape of its tensor. One mask may stand for several tensors.

    Raises:
        ValueError: lengths or shapes differ; then nothing has changed.
        TypeError: a mask is not bool; then nothing has changed.

    Example:
        >>> weight = torch.tensor([1.0, -4.0])
        >>> apply_masks_([weight], [torch.tensor([False, True])])
        >>> weight
        tensor([ 0., -4.])
    """
    _C.prune.apply_masks_(list(tensors), list(masks))
