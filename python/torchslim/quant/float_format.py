# SPDX-License-Identifier: BSD-3-Clause
"""Floating-point formats."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torchslim import _C


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format: sign, exponent, mantissa.

    Exponent code c > 0 stands for (1 + k/2^m)·2^(c − bias), code 0 for the subnormals (k/2^m)·2^(1 − bias).

    Args:
        exponent_bits: 0 to 8; 0: evenly spaced numbers, subnormals only.
        mantissa_bits: 0 to 22; at least 1 without exponent bits, and with `specials` "ieee".
        bias: -64 to 127; the largest number must be a finite float32.
        specials: which codes are no numbers: "ieee", those of the largest exponent, infinities and NaN; "nan", the one
            of all ones, NaN; or "none".
        saturate: whether what is too large becomes the largest number; if not, infinity ("ieee") or NaN ("nan"). "none"
            saturates.

    Raises:
        ValueError: none of these.

    Example:
        >>> FloatFormat.e4m3fn().max
        448.0
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: str
    saturate: bool = True

    def __post_init__(self) -> None:
        """Checks the format; in compiled code the op does."""
        if not torch.compiler.is_compiling():
            self._limits()

    @staticmethod
    def fp16(saturate: bool = True) -> FloatFormat:
        """IEEE half: e5m10, largest 65504."""
        return FloatFormat(5, 10, 15, "ieee", saturate)

    @staticmethod
    def bf16(saturate: bool = True) -> FloatFormat:
        """bfloat16: e8m7, largest 3.39e38."""
        return FloatFormat(8, 7, 127, "ieee", saturate)

    @staticmethod
    def e4m3fn(saturate: bool = True) -> FloatFormat:
        """OCP FP8 E4M3: no infinities, largest 448 (Micikevicius et al. 2022, arXiv:2209.05433)."""
        return FloatFormat(4, 3, 7, "nan", saturate)

    @staticmethod
    def e5m2(saturate: bool = True) -> FloatFormat:
        """OCP FP8 E5M2, as IEEE: largest 57344."""
        return FloatFormat(5, 2, 15, "ieee", saturate)

    @staticmethod
    def minifloat(exponent_bits: int, mantissa_bits: int) -> FloatFormat:
        """Any other, every code a number, with the bias 2^(exponent_bits − 1) − 1 (0 for 1 or no exponent bits).

        The elements of OCP MX are minifloat(3, 2), (2, 3), (2, 1), and minifloat(0, 7), int8 in steps of 1/64.
        """
        return FloatFormat(exponent_bits, mantissa_bits, _C.quant.minifloat_bias(exponent_bits, mantissa_bits), "none")

    @property
    def max(self) -> float:
        """The largest number."""
        return self._limits()[0]

    @property
    def smallest(self) -> float:
        """The smallest number > 0."""
        return self._limits()[1]

    def _limits(self) -> tuple[float, float]:
        largest, smallest = _C.quant.float_format_limits(
            self.exponent_bits, self.mantissa_bits, self.bias, self.specials, self.saturate
        )
        return largest, smallest
