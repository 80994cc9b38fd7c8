# SPDX-License-Identifier: BSD-3-Clause
"""What `prepare` returns, and the switches for it."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.layers import BATCH_NORMS


class PreparedModel(nn.Module):
    """A model that trains on the grids it will ship with; `prepare` makes it.

    Its modules, parameters and buffers have the names and the order they had; the quantisers come on top. It trains
    with any optimiser, and copies, saves and loads as any module does.

    Attributes:
        example_shape: the shape of the example input; other batch sizes run too.
        code: the Python code of the forward.
    """

    def __init__(self, root: nn.Module, code: str, example_shape: tuple[int, ...]) -> None:
        """Takes over the modules of `root`; `code` is the Python code of the forward."""
        super().__init__()
        for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[name] = root.__dict__[name]
        self.training = root.training
        self.example_shape = example_shape
        self.code = code
        self._batch_norm_frozen = False
        self._compile()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the model's output, on its grid."""
        return cast(Tensor, self._run(self, x))

    def train(self, mode: bool = True) -> "PreparedModel":
        """Switches training and eval; frozen batch norms stay in eval."""
        super().train(mode)
        if self._batch_norm_frozen:
            for norm in _batch_norms(self):
                norm.eval()
        return self

    def _compile(self) -> None:
        scope: dict[str, Any] = {"torch": torch}
        exec(compile(self.code, "<forward of a prepared model>", "exec"), scope)
        self._run = scope["forward"]

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the compiled forward out, which does not pickle."""
        return {name: value for name, value in self.__dict__.items() if name != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the state and compiles the forward again."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._compile()


def _batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, BATCH_NORMS))


def fake_quantizers(model: nn.Module) -> Iterator[tuple[str, FakeQuantize]]:
    """Yields every quantiser of a model with its dotted name."""
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantize):
            yield name, module


def enable_observer(model: nn.Module) -> None:
    """Lets the ranges of all quantisers follow the activations in training forwards (the default)."""
    for _, module in fake_quantizers(model):
        module.enable_observer()


def disable_observer(model: nn.Module) -> None:
    """Keeps the ranges of all quantisers as they are, in training too."""
    for _, module in fake_quantizers(model):
        module.disable_observer()


def enable_fake_quant(model: nn.Module) -> None:
    """Rounds activations and weights (the default)."""
    for _, module in fake_quantizers(model):
        module.enable_fake_quant()


def disable_fake_quant(model: nn.Module) -> None:
    """Runs the model in float; enabled observers still follow the activations."""
    for _, module in fake_quantizers(model):
        module.disable_fake_quant()


def freeze_batch_norm(model: PreparedModel, frozen: bool = True) -> None:
    """Keeps the running statistics of batch norms as they are, in training too; gamma and beta still train.

    Done in the last epochs, training then sees the statistics that ship.

    Args:
        model: a prepared model.
        frozen: False lets them move again.

    Raises:
        TypeError: `model` is not a prepared model.
    """
    if not isinstance(model, PreparedModel):
        raise TypeError(
            f"torchslim.quant.freeze_batch_norm: expected a prepared model, got {type(model).__name__}; "
            "call torchslim.quant.prepare first"
        )
    model._batch_norm_frozen = frozen
    model.train(model.training)
