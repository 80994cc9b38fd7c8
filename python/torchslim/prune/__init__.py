# SPDX-License-Identifier: BSD-3-Clause
"""Makes weights zero while a network trains, and removes channels for real."""

from torchslim.prune.apply_masks import apply_masks_
from torchslim.prune.channel_pruner import ChannelPruner, apply_plan
from torchslim.prune.magnitude_masks import magnitude_masks
from torchslim.prune.magnitude_pruner import MagnitudePruner
from torchslim.prune.schedule import (
    ConstantSchedule,
    OneShotSchedule,
    PolynomialSchedule,
    constant_schedule,
    one_shot_schedule,
    polynomial_schedule,
)

__all__ = [
    "ChannelPruner",
    "ConstantSchedule",
    "MagnitudePruner",
    "OneShotSchedule",
    "PolynomialSchedule",
    "apply_masks_",
    "apply_plan",
    "constant_schedule",
    "magnitude_masks",
    "one_shot_schedule",
    "polynomial_schedule",
]
