# SPDX-License-Identifier: BSD-3-Clause
"""A transformer's encoder of PyTorch's by its layers: its own forward decides by much that a trace cannot hold."""

from collections.abc import Callable
from typing import Any

from torch import nn

#: The modules that `plain_forward` knows.
ENCODERS = (nn.TransformerEncoder, nn.TransformerEncoderLayer)


def plain_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """Returns a forward of an encoder or its layer that can be traced; None where it is called with masks."""
    if len(args) != 1 or any(value is not None and value is not False for value in kwargs.values()):
        return None
    if type(module) is nn.TransformerEncoderLayer:
        return _encoder_layer(module)
    return _encoder(module) if type(module) is nn.TransformerEncoder else None


def _encoder_layer(m: nn.TransformerEncoderLayer) -> Callable[..., Any]:
    def feed_forward(x: Any) -> Any:  # noqa: ANN401
        return m.dropout2(m.linear2(m.dropout(m.activation(m.linear1(x)))))

    def attend(x: Any) -> Any:  # noqa: ANN401
        return m.dropout1(m.self_attn(x, x, x, need_weights=False)[0])

    def forward(src: Any, **_: Any) -> Any:  # noqa: ANN401
        if m.norm_first:
            x = src + attend(m.norm1(src))
            return x + feed_forward(m.norm2(x))
        x = m.norm1(src + attend(src))
        return m.norm2(x + feed_forward(x))

    return forward


def _encoder(m: nn.TransformerEncoder) -> Callable[..., Any]:
    def forward(src: Any, **_: Any) -> Any:  # noqa: ANN401
        x = src
        for layer in m.layers:
            x = layer(x)
        return x if m.norm is None else m.norm(x)

    return forward
