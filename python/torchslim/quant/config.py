# SPDX-License-Identifier: BSD-3-Clause
"""What each layer of a model is quantised with: the `config` of `prepare`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from torchslim import _C
from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.learned_activation import LearnedActivation
from torchslim.quant.learned_modules import LearnedQuantizer
from torchslim.quant.observers import Observer, as_observer
from torchslim.quant.weight_quantizer import ModuleWeightQuantizer, WeightQuantizer
from torchslim.quant.weighted_layers import WeightedLayer, weight_by_outputs

ActivationFactory = Callable[[str], nn.Module]
WeightFactory = Callable[[nn.Module], nn.Module]

_WHO = "torchslim.quant.prepare"
_LEVEL_KEYS = ("bits", "symmetric", "observer", "activation", "weight")
_ACTIVATION_KEYS = ("bits", "symmetric", "observer", "quantizer")
_WEIGHT_KEYS = ("bits", "quantizer", "scale_search")
_SCOPES = ("types", "kinds", "names")
_SYMMETRIC = {"lsq": True, "tqt": True, "lsq+": False, "pact": False, "range": False}
_WEIGHT_QUANTIZERS: list[str] = _C.quant.WeightQuantizerOptions.quantizers()


@dataclass(frozen=True)
class ActivationConfig:
    """How the result of a layer is quantised."""

    #: Width of a code, 1 to 8.
    bits: int = 8
    #: Whether the zero point is 0. Learned quantisers have a rule of their own.
    symmetric: bool = False
    #: How "fake_quantize" follows the range.
    observer: str | Observer = "moving_average"
    #: "fake_quantize", "lsq", "lsq+", "pact", "tqt", "range", or what makes a quantiser from the activation's name.
    quantizer: str | ActivationFactory = "fake_quantize"

    def build(self, activation: str = "none") -> ActivationQuantizer:
        """Returns a new quantiser with `activation` ("none", "relu", "relu6") in it.

        PACT clips at 0, so it goes only behind a ReLU; elsewhere it is "fake_quantize".
        """
        if not isinstance(self.quantizer, str):
            made = self.quantizer(activation)
            if isinstance(made, LearnedQuantizer):
                return LearnedActivation(made, activation)
            if not isinstance(made, ActivationQuantizer):
                raise TypeError(
                    "the factory of an activation quantiser must return a FakeQuantize, a LearnedActivation or a "
                    f"learned quantiser, got {type(made).__name__}"
                )
            return made
        if self.quantizer == "fake_quantize" or (self.quantizer == "pact" and activation == "none"):
            return FakeQuantize(self.observer, self.bits, self.symmetric, activation=activation)
        return LearnedActivation.of(self.quantizer, self.bits, activation)


@dataclass(frozen=True)
class WeightConfig:
    """How the weight of a layer is quantised: symmetric, one grid per output channel."""

    #: A quantiser of `WeightQuantizer`, or what makes a module from the layer.
    quantizer: str | WeightFactory = "fake_quantize"
    #: Width of a code; None: the quantiser's own.
    bits: int | None = None
    #: "absmax" or "mse".
    scale_search: str = "absmax"

    def build(self, layer: nn.Module) -> WeightQuantizer | None:
        """Returns a new quantiser for the weight of `layer`; None: the int8 rule, which needs none."""
        if not isinstance(self.quantizer, str):
            made = self.quantizer(layer)
            return made if isinstance(made, WeightQuantizer) else ModuleWeightQuantizer(made)
        if self._options().is_default:
            return None
        assert isinstance(layer, WeightedLayer)
        return WeightQuantizer(weight_by_outputs(layer).detach(), self.quantizer, self.bits, self.scale_search)

    def check(self) -> None:
        """Raises ValueError unless quantiser, bits and search go together."""
        if isinstance(self.quantizer, str):
            self._options().check("weight")

    def takes(self, bits: int) -> bool:
        """Whether the quantiser has a grid of that many bits."""
        return not isinstance(self.quantizer, str) or bool(self._options().takes(bits))

    def _options(self) -> Any:  # noqa: ANN401
        return _C.quant.WeightQuantizerOptions(self.quantizer, self.bits, self.scale_search)


@dataclass(frozen=True)
class LayerConfig:
    """What one layer is quantised with."""

    activation: ActivationConfig = field(default_factory=ActivationConfig)
    weight: WeightConfig = field(default_factory=WeightConfig)
    #: Whether the layer stays in float; the rest then says what it would be quantised with.
    float: bool = False


class QuantConfig:
    """The parsed `config` of `prepare`: asked for each layer, by name before type before kind before the rest.

    Args:
        config: None or the mapping that `docs/api/quant/config.md` describes.

    Raises:
        ValueError: an unknown key, or settings that contradict each other; the message names the place.
        TypeError: a value of another type.
    """

    def __init__(self, config: Mapping[Any, Any] | None) -> None:
        """Parses and checks everything that can be checked without a model."""
        if not isinstance(config, Mapping | None):
            raise TypeError(f"{_WHO}: expected config to be None or a mapping, got {type(config).__name__}")
        config = dict(config or {})
        scopes: dict[str, Any] = {scope: config.pop(scope, None) or {} for scope in _SCOPES}
        for scope, entries in scopes.items():
            if not isinstance(entries, Mapping):
                raise TypeError(f"{_WHO}: expected config[{scope!r}] to be a mapping, got {type(entries).__name__}")
        self._base = _apply(LayerConfig(), config, "config", _LEVEL_KEYS + _SCOPES)
        self._types: dict[type[nn.Module] | str, Any] = dict(scopes["types"])
        self._kinds: dict[str, Any] = dict(scopes["kinds"])
        self._names: dict[str, Any] = dict(scopes["names"])
        self._check_entries()
        self._used: set[tuple[str, object]] = set()
        self._asked: dict[str, list[str]] = {"types": [], "kinds": [], "names": []}

    def layer(self, name: str, kind: str, module: nn.Module | None = None, quantizer: str = "") -> LayerConfig:
        """Returns what the layer is quantised with.

        Args:
            name: its dotted name; for operations without a module, that of their quantiser.
            kind: what it does: "conv", "linear", "add", "input", ...
            module: the float layer, if there is one.
            quantizer: the dotted name of the quantiser behind it, where that counts too.
        """
        self._asked["names"] += [name, quantizer] if quantizer else [name]
        self._asked["kinds"].append(kind)
        if module is not None:
            self._asked["types"].append(type(module).__name__)
        settings = self._base
        for scope, key, entry in self._entries_of((name, quantizer), kind, module):
            self._used.add((scope, key))
            settings = _apply(settings, entry, _place(scope, key), _LEVEL_KEYS)
        return settings

    def check_used(self) -> None:
        """Raises ValueError for the first entry that no layer has asked for, with the nearest that there are."""
        for scope, entries in (("names", self._names), ("types", self._types), ("kinds", self._kinds)):
            for key in entries:
                if (scope, key) not in self._used:
                    raise ValueError(f"{_WHO}: {_place(scope, key)} matches no layer{self._nearest(scope, key)}")

    def _check_entries(self) -> None:
        for key in self._types:
            if not isinstance(key, str) and not (isinstance(key, type) and issubclass(key, nn.Module)):
                raise TypeError(f"{_WHO}: expected config['types'] to have module classes or their names, got {key!r}")
        for scope, entries in (("types", self._types), ("kinds", self._kinds), ("names", self._names)):
            for key, entry in entries.items():
                if scope != "types" and not isinstance(key, str):
                    raise TypeError(f"{_WHO}: expected config[{scope!r}] to have names, got {key!r}")
                _apply(self._base, entry, _place(scope, key), _LEVEL_KEYS)

    def _entries_of(
        self, names: tuple[str, ...], kind: str, module: nn.Module | None
    ) -> Iterator[tuple[str, object, Any]]:
        """The entries that match, the wider first."""
        if kind in self._kinds:
            yield "kinds", kind, self._kinds[kind]
        for cls in reversed(type(module).__mro__) if module is not None else ():
            for key in (cls.__name__, cls):
                if key in self._types:
                    yield "types", key, self._types[key]
        for name in names:
            if name in self._names:
                yield "names", name, self._names[name]

    def _nearest(self, scope: str, key: object) -> str:
        known = sorted(set(self._asked[scope]))
        name = key if isinstance(key, str) else getattr(key, "__name__", str(key))
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            return f"; did you mean {' or '.join(map(repr, near))}?"
        return f"; there are {', '.join(map(repr, known[:8]))}{', ...' if len(known) > 8 else ''}" if known else ""


def _place(scope: str, key: object) -> str:
    return f"config[{scope!r}][{key if isinstance(key, type) else repr(key)}]"


def _apply(settings: LayerConfig, entry: object, place: str, keys: tuple[str, ...]) -> LayerConfig:
    """`settings` with what `entry`, one level of the config, says otherwise."""
    if entry is None or entry == "float":
        return replace(settings, float=True)
    level = _mapping(entry, place, keys)
    bits = _bits(level.get("bits"), place)
    own = _mapping(level.get("activation", {}), f"{place}['activation']", _ACTIVATION_KEYS)
    wide = {key: level[key] for key in ("symmetric", "observer") if key in level}
    activation = _activation(replace(settings.activation, **wide), own, bits, f"{place}['activation']")
    own = _mapping(level.get("weight", {}), f"{place}['weight']", _WEIGHT_KEYS)
    weight = _weight(settings.weight, own, bits, f"{place}['weight']")
    return LayerConfig(activation, weight)


def _activation(wide: ActivationConfig, own: dict[str, Any], both: int | None, place: str) -> ActivationConfig:
    quantizer = own.get("quantizer", wide.quantizer)
    if isinstance(quantizer, str):
        if quantizer not in ("fake_quantize", *_SYMMETRIC):
            known = ", ".join(("fake_quantize", *_SYMMETRIC))
            raise ValueError(f"{_WHO}: {place}: quantizer must be one of {known}, or a factory, got {quantizer!r}")
    elif not callable(quantizer):
        raise TypeError(f"{_WHO}: {place}: expected quantizer to be a name or a factory, got {quantizer!r}")
    symmetric = own.get("symmetric", wide.symmetric)
    if not isinstance(symmetric, bool):
        raise TypeError(f"{_WHO}: {place}: expected symmetric to be True or False, got {symmetric!r}")
    rule = _SYMMETRIC.get(quantizer) if isinstance(quantizer, str) else None
    if rule is not None and own.get("symmetric", rule) != rule:
        raise ValueError(
            f"{_WHO}: {place}: the quantizer {quantizer!r} is {'' if rule else 'not '}symmetric; leave `symmetric` out"
        )
    observer = own.get("observer", wide.observer)
    try:
        as_observer(observer)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{_WHO}: {place}: {str(error).removeprefix('FakeQuantize: ')}") from None
    if "observer" in own and quantizer != "fake_quantize" and "quantizer" in own:
        raise ValueError(f"{_WHO}: {place}: the quantizer {quantizer!r} has no observer; leave `observer` out")
    bits = _bits(own.get("bits"), place) or both or wide.bits
    if bits > 8:
        raise ValueError(f"{_WHO}: {place}: activations have 1 to 8 bits, got {bits}")
    made = ActivationConfig(bits, symmetric, observer, quantizer)
    if isinstance(quantizer, str):
        try:
            for activation in ("none", "relu"):
                made.build(activation)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{_WHO}: {place}: {error}") from None
    return made


def _weight(wide: WeightConfig, own: dict[str, Any], both: int | None, place: str) -> WeightConfig:
    quantizer = own.get("quantizer", wide.quantizer)
    if isinstance(quantizer, str):
        if quantizer not in _WEIGHT_QUANTIZERS:
            known = ", ".join(_WEIGHT_QUANTIZERS)
            raise ValueError(f"{_WHO}: {place}: quantizer must be one of {known}, or a factory, got {quantizer!r}")
    elif not callable(quantizer):
        raise TypeError(f"{_WHO}: {place}: expected quantizer to be a name or a factory, got {quantizer!r}")
    chosen = "quantizer" in own
    search = own.get("scale_search", "absmax" if chosen else wide.scale_search)
    made = WeightConfig(quantizer, None, search)
    bits = _bits(own.get("bits"), place)
    if bits is None:
        # What is meant for activations too, or for wider, counts where this quantiser can mean it.
        inherited = both if both is not None else wide.bits
        may_ignore = chosen or both is None
        bits = None if inherited is not None and may_ignore and not made.takes(inherited) else inherited
    if bits == 1 and quantizer == "fake_quantize" and not chosen:
        quantizer = "binary"
    made = WeightConfig(quantizer, bits, search)
    try:
        made.check()
    except ValueError as error:
        raise ValueError(f"{_WHO}: {place}: {str(error).removeprefix('weight: ')}") from None
    return made


def _mapping(value: object, place: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if value is None or value == "float":
        raise ValueError(f"{_WHO}: {place} cannot be in float by itself; set the whole layer to None")
    if not isinstance(value, Mapping):
        raise TypeError(f"{_WHO}: expected {place} to be a mapping, or None for float, got {value!r}")
    for key in value:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            raise ValueError(
                f"{_WHO}: {place}: unknown config key {key!r}; "
                + (f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(keys)}")
            )
    return dict(value)


def _bits(value: object, place: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{_WHO}: {place}: expected bits to be a whole number, got {value!r}")
    if not 1 <= value <= 16:
        raise ValueError(f"{_WHO}: {place}: bits must be in [1, 8], or the width of a float, got {value}")
    return value
