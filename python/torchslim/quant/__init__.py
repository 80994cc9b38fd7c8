# SPDX-License-Identifier: BSD-3-Clause
"""Quantisation: tensors and models that compute in floats what integers will compute."""

from torchslim.quant.fake_quantize import fake_quantize
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.observers import MinMaxObserver, MovingAverageObserver
from torchslim.quant.qparams import choose_qparams, weight_qparams

__all__ = [
    "FakeQuantize",
    "MinMaxObserver",
    "MovingAverageObserver",
    "choose_qparams",
    "fake_quantize",
    "weight_qparams",
]
