# SPDX-License-Identifier: BSD-3-Clause
"""GPTQ for a whole prepared model."""

from __future__ import annotations

from torch import nn

from torchslim.quant.batches import Loader, Progress
from torchslim.quant.gptq import gptq
from torchslim.quant.hessian import HessianAccumulator
from torchslim.quant.layer_walk import bits_of, check_bits, geometry, put_weight, walk_layers
from torchslim.quant.weight_grid import ScaleSearch

_WHO = "torchslim.quant.apply_gptq"


def apply_gptq(
    model: nn.Module,
    loader: Loader,
    bits: int | None = None,
    *,
    scale_search: ScaleSearch = "absmax",
    block_size: int = 128,
    damping: float = 0.01,
    act_order: bool = False,
    progress: Progress = None,
) -> None:
    """Rounds the weights of a prepared, calibrated model by GPTQ, layer by layer in the order data flows.

    Each layer is rounded so that, with the inputs that the layers rounded before it give it, it answers what it answers
    in float: so a layer makes up for those before it (`gptq` with a drift). Memory: a copy of the parameters, and one
    layer's Hessian and drift; each layer runs the batches anew up to itself. Batch norms are left alone: rounding per
    output channel commutes with them.

    Args:
        model: of `prepare`, after `calibrate` or training, in any mode, which it keeps.
        loader: gives batches of inputs, or tuples that begin with one, the same each time; some hundred images.
        bits: width of a code, 2 to 8; None: the width that each layer was prepared with.
        scale_search: as for `gptq`.
        block_size: as for `gptq`.
        damping: as for `gptq`.
        act_order: as for `gptq`.
        progress: hears (layers done, layers).

    Raises:
        ValueError: the model is not prepared or not calibrated, or runs a layer twice; the loader can be read once
            only, is empty, or gives NaN or infinity; options out of range; a layer
            whose weight quantiser has no integer codes, or fewer bits; a transposed convolution. The model is then as
            it was.

    Example:
        >>> ts.quant.calibrate(prepared, loader)
        >>> ts.quant.apply_gptq(prepared, loader)
    """
    with walk_layers(_WHO, model, loader) as walk:
        check_bits(_WHO, walk.layers, bits)
        for done, layer in enumerate(walk.layers, 1):
            hessian = HessianAccumulator(layer.weight.shape, **geometry(layer))
            for rounded, in_float in walk.values(layer):
                hessian.add(rounded.input, in_float.input)
            rounded_weight = gptq(
                layer.weight,
                hessian.hessian(),
                bits_of(layer, bits),
                scale_search=scale_search,
                block_size=block_size,
                damping=damping,
                act_order=act_order,
                drift=hessian.drift(),
            )
            put_weight(layer, rounded_weight)
            if progress is not None:
                progress(done, len(walk.layers))
