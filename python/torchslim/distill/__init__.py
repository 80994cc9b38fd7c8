# SPDX-License-Identifier: BSD-3-Clause
"""Losses that let a small network learn from a large one."""

from torchslim.distill.kd_loss import KDLoss, kd_loss

__all__ = ["KDLoss", "kd_loss"]
