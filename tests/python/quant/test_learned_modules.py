# SPDX-License-Identifier: BSD-3-Clause
import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant.learned_modules import LearnedQuantizer

quant = ts.quant

#: (constructor, what a trained state dict holds)
MODULES: dict[str, tuple[Callable[..., LearnedQuantizer], set[str]]] = {
    "LSQ": (quant.LearnedFakeQuantize, {"scale", "zero_point", "initialized"}),
    "LSQ+": (
        lambda *args, **kwargs: quant.LearnedFakeQuantize(*args, symmetric=False, **kwargs),
        {"scale", "zero_point", "initialized"},
    ),
    "PACT": (quant.Pact, {"alpha", "initialized"}),
    "TQT": (quant.TrainedThreshold, {"log2_threshold", "initialized"}),
    "range": (quant.TrainableRange, {"input_low", "input_range", "initialized"}),
}

every_module = pytest.mark.parametrize("name", MODULES)
every_axis = pytest.mark.parametrize("axis", [None, 1, -2])


def make(name: str, quant_min: int = -8, quant_max: int = 7, axis: int | None = None) -> LearnedQuantizer:
    torch._dynamo.reset()
    return MODULES[name][0](quant_min, quant_max, axis=axis)


def train(module: LearnedQuantizer, x: Tensor, steps: int = 20, rate: float = 0.05) -> None:
    optimizer = torch.optim.SGD(module.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(x) - x).square().mean().backward()
        optimizer.step()


@every_module
@every_axis
def test_qparams_are_exactly_what_forward_used(name: str, axis: int | None) -> None:
    x = torch.randn(3, 4, 50)
    module = make(name, axis=axis)
    train(module, x)
    scale, zero_point = module.calculate_qparams()
    assert (scale.dtype, zero_point.dtype) == (torch.float32, torch.int32)
    assert scale.shape == zero_point.shape == (() if axis is None else (4,))
    assert not scale.requires_grad
    assert torch.equal(module(x), quant.fake_quantize(x, scale, zero_point, -8, 7, axis))
    assert set(module.state_dict()) == MODULES[name][1]


@every_module
@every_axis
def test_training_lowers_the_error(name: str, axis: int | None) -> None:
    x = torch.relu(torch.randn(3, 4, 500)) if name == "PACT" else torch.randn(3, 4, 500)
    module = make(name, axis=axis)
    module(x)
    for parameter in module.parameters():
        if parameter is getattr(module, "log2_threshold", None):
            parameter.data += 2.0  # two powers of two too far
        else:
            parameter.data *= 1.7
    before = (module(x) - x).square().mean().item()
    train(module, x, steps=150, rate=0.5 if name == "TQT" else 0.1)
    after = (module(x) - x).square().mean().item()
    # What PACT clips is all that moves its alpha: none here, so that it stays.
    assert after < before if name != "PACT" else after == before
    assert (module.calculate_qparams()[0] > 0).all()


@pytest.mark.parametrize("axis", [None, 1])
def test_pact_moves_where_it_clips(axis: int | None) -> None:
    x = torch.relu(torch.randn(3, 4, 500))
    module = quant.Pact(0, 15, axis=axis)
    module(x)
    module.alpha.data *= 0.3
    before = (module(x) - x).square().mean().item()
    train(module, x, steps=100, rate=0.5)
    assert (module(x) - x).square().mean().item() < 0.3 * before


@every_module
@pytest.mark.parametrize("axis", [None, 1])
def test_state_is_saved_loaded_and_copied(name: str, axis: int | None) -> None:
    x = torch.randn(3, 4, 50)
    module = make(name, axis=axis)
    train(module, x)
    loaded, twin = make(name, axis=axis), copy.deepcopy(module)
    loaded.load_state_dict(module.state_dict())
    loaded.eval()
    for other in (loaded, twin):
        assert torch.equal(other(x), module(x))
        assert all(
            torch.equal(a, b) for a, b in zip(other.calculate_qparams(), module.calculate_qparams(), strict=True)
        )
    before = {key: value.clone() for key, value in module.state_dict().items()}
    train(twin, x * 3)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@every_module
def test_an_optimizer_made_before_the_first_batch_trains_the_channels(name: str) -> None:
    module = make(name, axis=1)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    x = torch.randn(3, 4, 50)
    module(x)
    (module(2 * x) * torch.randn(3, 4, 50)).sum().backward()  # twice as large: some of it is clipped
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer.step()
    for parameter, start in zip(module.parameters(), before, strict=True):
        assert parameter.shape == (4,)
        assert (parameter != start).all()


@every_module
def test_without_a_first_batch_there_is_no_grid(name: str) -> None:
    module = make(name)
    with pytest.raises(ValueError, match="the grid has no values yet; run a batch in training mode, or call init"):
        module.calculate_qparams()
    module.eval()
    with pytest.raises(ValueError, match="the grid has no values yet"):
        module(torch.randn(5))
    module.initialize(torch.randn(5))
    module(torch.randn(5))


@every_module
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.tensor([1.0, math.nan]), "the first batch holds NaN or infinity"),
        (torch.tensor([1.0, math.inf]), "the first batch holds NaN or infinity"),
        (torch.empty(0), r"the first batch has no elements, its shape is \[0\]"),
    ],
)
def test_a_first_batch_without_a_range_is_refused_and_changes_nothing(name: str, batch: Tensor, message: str) -> None:
    module = make(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        module(batch)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@every_module
@pytest.mark.parametrize("axis", [None, 0])
def test_a_first_batch_of_zeros_gives_a_grid(name: str, axis: int | None) -> None:
    module = make(name, axis=axis)
    assert torch.equal(module(torch.zeros(3, 5)), torch.zeros(3, 5))
    assert module.calculate_qparams()[0].isfinite().all()


@pytest.mark.parametrize("axis", [None, 1])
def test_where_they_begin(axis: int | None) -> None:
    x = torch.randn(3, 4, 50) + 0.3
    channels = [x] if axis is None else [x[:, c] for c in range(4)]

    def values(number: Callable[[Tensor], float]) -> Tensor:
        found = torch.tensor([number(channel) for channel in channels])
        return found[0] if axis is None else found

    lsq = quant.LearnedFakeQuantize(-8, 7, axis)
    lsq(x)
    assert torch.allclose(lsq.scale, values(lambda c: 2 * c.abs().mean().item() / math.sqrt(7)), rtol=1e-6)
    plus = quant.LearnedFakeQuantize(-8, 7, axis, symmetric=False)
    plus(x)
    assert torch.allclose(plus.scale, values(lambda c: (c.max() - c.min()).item() / 15), rtol=1e-6)
    assert torch.equal(plus.zero_point, (-8 - values(lambda c: c.min().item()) / plus.scale).round())
    pact = quant.Pact(-8, 7, axis)
    pact(x)
    assert torch.equal(pact.alpha, values(lambda c: c.max().item()))
    tqt = quant.TrainedThreshold(-8, 7, axis)
    tqt(x)
    assert torch.allclose(tqt.log2_threshold, values(lambda c: math.log2(c.abs().max().item())), atol=1e-6)
    trainable = quant.TrainableRange(-8, 7, axis)
    trainable(x)
    assert torch.equal(trainable.input_low, values(lambda c: c.min().item()))
    assert torch.allclose(trainable.input_range, values(lambda c: (c.max() - c.min()).item()))


def test_a_scale_that_is_pushed_below_zero_stays_positive() -> None:
    module = quant.LearnedFakeQuantize(-8, 7)
    x = torch.randn(100)
    module(x)
    for raw in (-0.2, 0.0, -1e-30):
        module.scale.data.fill_(raw)
        y = module(x)
        assert y.isfinite().all() and module.calculate_qparams()[0] == max(abs(raw), 2.0**-23)
        (gradient,) = torch.autograd.grad((y - x).square().sum(), module.scale)
        assert gradient.isfinite()


@every_module
def test_a_bfloat16_model_keeps_its_type(name: str) -> None:
    module = make(name, axis=1)
    x = torch.randn(3, 4, 50).bfloat16().requires_grad_()
    module(x)
    module.bfloat16()
    y = module(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad is not None and x.grad.dtype == torch.bfloat16
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.bfloat16 for parameter in module.parameters()
    )
    scale, zero_point = module.calculate_qparams()
    assert torch.equal(y, quant.fake_quantize(x, scale, zero_point, -8, 7, 1))


@every_module
def test_compiles_whole_and_exports(name: str) -> None:
    module = make(name, axis=1)
    x = torch.randn(3, 4, 50)
    train(module, x)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = [torch.autograd.grad(each(x).square().sum(), list(module.parameters())) for each in (module, compiled)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    exported = torch.export.export(module.eval(), (x,))
    assert torch.equal(exported.module()(x), module(x))
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.torchslim.learned_fake_quantize.default) == 1


def test_trains_inside_a_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 16), quant.Pact(0, 15), nn.Linear(16, 3), quant.LearnedFakeQuantize(symmetric=False)
    )
    x, target = torch.randn(64, 8), torch.randint(0, 3, (64,))
    net(x)
    optimizer = torch.optim.SGD(net.parameters(), 0.3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quant.LearnedFakeQuantize(7, -8), r"LearnedFakeQuantize: quant_min must be < quant_max.*got 7 and -8"),
        (lambda: quant.LearnedFakeQuantize(-8, 0), "quant_max must be > 0, got 0"),
        (lambda: quant.LearnedFakeQuantize(1, 8), "the zero point 0 must be in the grid, got quant_min 1"),
        (lambda: quant.LearnedFakeQuantize(grad_scale="paper"), "grad_scale must be one of none, numel.*got 'paper'"),
        (lambda: quant.Pact(3, 3), r"Pact: quant_min must be < quant_max.*got 3 and 3"),
        (lambda: quant.TrainedThreshold(-7, 6), r"quant_max \+ 1 must be a power of two.*got quant_max 6"),
        (lambda: quant.TrainedThreshold(1, 7), "the zero point 0 must be in the grid, got quant_min 1"),
        (lambda: quant.TrainableRange(0, 2**24), r"quant_min must be < quant_max, both within ±2\*\*23"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_axis_that_is_no_whole_number_is_refused() -> None:
    axis: Any = 1.5
    with pytest.raises(TypeError, match=r"Pact: axis must be None or a whole number, got 1\.5"):
        quant.Pact(axis=axis)


def test_their_arguments_are_printed() -> None:
    assert repr(quant.Pact(0, 15, axis=1)) == "Pact(quant_min=0, quant_max=15, axis=1)"
    assert "symmetric=False, grad_scale='features'" in repr(
        quant.LearnedFakeQuantize(symmetric=False, grad_scale="features")
    )
