# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's attention layers in operations of their own, where PyTorch would call a kernel for the whole layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Within, attention layers of `model` run as projections, scores, softmax and sums, with the batch first."""
    fast = torch.backends.mha.get_fastpath_enabled()
    layers = [m for m in model.modules() if type(m) is nn.MultiheadAttention and "forward" not in m.__dict__]
    torch.backends.mha.set_fastpath_enabled(False)
    for layer in layers:
        layer.__dict__["forward"] = _forward_of(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
        torch.backends.mha.set_fastpath_enabled(fast)


def _forward_of(layer: nn.MultiheadAttention) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        special = layer.bias_k is not None or layer.add_zero_attn or key_padding_mask is not None or query.dim() != 3
        if special or (attn_mask is not None and attn_mask.dim() != 2):
            return nn.MultiheadAttention.forward(
                layer, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        inputs = (query, key, value)
        if not layer.batch_first:
            inputs = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        q, k, v = (_in_heads(layer, x, i) for i, x in enumerate(inputs))
        mask: Any = attn_mask
        if need_weights:
            scores = (q * layer.head_dim**-0.5) @ k.transpose(-2, -1)
            if mask is not None:
                scores = scores + (mask if mask.is_floating_point() else _hidden(mask))
            weights = scores.softmax(-1)
            mixed = weights @ v
        else:
            if mask is not None and not mask.is_floating_point():
                mask = _hidden(mask)
            weights, mixed = None, F.scaled_dot_product_attention(q, k, v, mask)
        result = layer.out_proj(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        return result if layer.batch_first else result.transpose(0, 1), weights

    return forward


def _in_heads(layer: nn.MultiheadAttention, x: Tensor, place: int) -> Tensor:
    """The query, key or value (place 0, 1, 2) of `x`: (N, S, E) to (N, heads, S, E / heads)."""
    if layer.in_proj_weight is not None:
        weight = layer.in_proj_weight.chunk(3)[place]
    else:
        weight = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)[place]
    bias = None if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)[place]
    projected = F.linear(x, weight, bias)
    n, places, _ = projected.shape
    return projected.view(n, places, layer.num_heads, layer.head_dim).transpose(1, 2)


def _hidden(mask: Tensor) -> Tensor:
    """What is added to scores where `mask` is true."""
    return torch.zeros(mask.shape).masked_fill(mask, float("-inf"))
