# SPDX-License-Identifier: BSD-3-Clause
"""Quantisation: tensors and models that compute in floats what integers will compute."""

from torchslim.quant.fake_quantize import fake_quantize

__all__ = ["fake_quantize"]
