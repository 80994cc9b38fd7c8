# SPDX-License-Identifier: BSD-3-Clause
"""What `prepare` returns, and the switches for it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.layers import BATCH_NORMS, QuantLayer


class PreparedModel(nn.Module):
    """A model that trains on the grids it will ship with; `prepare` makes it.

    Its modules, parameters and buffers have the names and the order they had; the quantisers come on top. It trains
    with any optimiser, and copies, saves and loads as any module does.

    Attributes:
        example_shape: the shape of the example input; other batch sizes run too.
        code: the Python code of the forward.
        float_layers: the dotted names of the layers with a weight that stay in float.
    """

    def __init__(
        self, root: nn.Module, code: str, example_shape: tuple[int, ...], float_layers: Iterable[str] = ()
    ) -> None:
        """Takes over the modules of `root`; `code` is the Python code of the forward."""
        super().__init__()
        for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[name] = root.__dict__[name]
        self.training = root.training
        self.example_shape = example_shape
        self.code = code
        self.float_layers = tuple(float_layers)
        self._batch_norm_frozen = False
        config = quantization_config(self)
        if any(value not in (_INT8, _INT8_LAYER) for value in config.values()):
            text = json.dumps(config, sort_keys=True).encode()
            self.register_buffer("quantization_config", torch.tensor(list(text), dtype=torch.uint8))
        self._compile()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the model's output, on its grid."""
        return cast(Tensor, self._run(self, x))

    def train(self, mode: bool = True) -> PreparedModel:
        """Switches training and eval; frozen batch norms stay in eval."""
        super().train(mode)
        if self._batch_norm_frozen:
            for norm in batch_norms(self):
                norm.eval()
        return self

    def _compile(self) -> None:
        scope: dict[str, Any] = {"torch": torch, "inf": math.inf, "nan": math.nan, "device": torch.device}
        exec(compile(self.code, "<forward of a prepared model>", "exec"), scope)
        self._run = scope["forward"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        """Refuses the state of another config before anything is changed; a float model's state passes."""
        file = _config_in(state_dict, prefix)
        for name, ours in quantization_config(self).items() if file is not None else ():
            theirs = file.get(name, ours) if file else (_INT8_LAYER if _has_weight(ours) else _INT8)
            if theirs != ours:
                raise ValueError(
                    f"torchslim.quant.PreparedModel: {name!r} was trained with another config: the state has "
                    f"{theirs!r}, the model {ours!r}; prepare the model with the config of the state"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the compiled forward out, which does not pickle."""
        return {name: value for name, value in self.__dict__.items() if name != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the state and compiles the forward again."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._compile()


#: What `quantization_config` says of the default.
_INT8 = "fake_quantize [-128, 127]"
_INT8_LAYER = f"weight fake_quantize 8, activation {_INT8}"


def quantization_config(model: PreparedModel) -> dict[str, str]:
    """Returns what each layer and each other quantiser of a prepared model is quantised with, by its dotted name."""
    config = dict.fromkeys(model.float_layers, "float")
    for name, module in model.named_modules():
        if isinstance(module, QuantLayer):
            weight = module.weight_fake_quantize
            kind = "fake_quantize 8" if weight is None else f"{weight.describe()} {weight.bits}"
            config[name] = f"weight {kind}, activation {_grid_of(module.output_fake_quantize)}"
        elif isinstance(module, ActivationQuantizer) and name.rpartition(".")[0] not in config:
            config[name] = _grid_of(module)
    return config


def _has_weight(config: str) -> bool:
    return config == "float" or config.startswith("weight")


def _grid_of(quantizer: ActivationQuantizer) -> str:
    return f"{quantizer.describe()} [{quantizer.quant_min}, {quantizer.quant_max}]"


def _config_in(state_dict: dict[str, Any], prefix: str) -> dict[str, str] | None:
    """The config that a state was saved with: empty for int8 throughout, None for the state of a float model."""
    saved = state_dict.get(f"{prefix}quantization_config")
    if isinstance(saved, Tensor):
        config: dict[str, str] = json.loads(bytes(saved.tolist()))
        return config
    return {} if any(key.endswith("fake_quantize.fake_quant_enabled") for key in state_dict) else None


def batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Yields every batch norm of a model."""
    return (module for module in model.modules() if isinstance(module, BATCH_NORMS))


def fake_quantizers(model: nn.Module) -> Iterator[tuple[str, ActivationQuantizer]]:
    """Yields every quantiser of activations in a model with its dotted name."""
    for name, module in model.named_modules():
        if isinstance(module, ActivationQuantizer):
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


def update_qparams(model: nn.Module) -> None:
    """Sets the grids of all quantisers to what follows from their ranges, where something was seen.

    Training forwards do so themselves. Needed after ranges were changed from outside, as by an average of buffers
    (`torch.optim.swa_utils.AveragedModel(model, use_buffers=True)`), which cuts zero points towards zero.
    """
    for module in model.modules():
        if isinstance(module, FakeQuantize):  # a learned grid follows from no range
            module.update_qparams()


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
