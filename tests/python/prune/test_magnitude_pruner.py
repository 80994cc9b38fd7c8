# SPDX-License-Identifier: BSD-3-Clause
import copy
import io
from collections.abc import Callable

import pytest
import torch
from reference.magnitude_masks import magnitude_masks as reference_masks
from torch import Tensor, nn
from torch.optim import Optimizer

import torchslim as ts

OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05),
    "sgd_momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2),
    "sgd_nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True, foreach=False),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, weight_decay=1e-2),
    "adam_fused": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, fused=True),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
    "adamw_amsgrad": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, amsgrad=True, weight_decay=0.1),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, weight_decay=1e-2),
    "rmsprop_all": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.01),
    "nadam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.01),
}
SCHEDULE = ts.prune.PolynomialSchedule(2, 8, final_sparsity=0.75, initial_sparsity=0.1, frequency=2)
LAYERS = ["0", "3", "6"]


def make_model(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 2 * 2, 5),
    )  # fmt: skip
    return model.to(memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def train(model: nn.Module, optimizer: Optimizer, steps: range, after: Callable[[], None]) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(4, 3, 6, 6, generator=generator)
        labels = torch.randint(5, (4,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        after()


def weights_of(model: nn.Module) -> list[Tensor]:
    return [model.get_submodule(name).weight for name in LAYERS]  # type: ignore[misc]


def states_of(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    return [
        value for value in optimizer.state[weight].values() if torch.is_tensor(value) and value.shape == weight.shape
    ]


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_gradients_and_states_stay_zero(
    name: str, scope: str, memory_format: torch.memory_format
) -> None:
    model = make_model(memory_format)
    optimizer = OPTIMIZERS[name](model)
    pruner = ts.prune.MagnitudePruner(model, SCHEDULE, optimizer, scope)  # type: ignore[arg-type]
    step = 0
    pruned_before = [torch.zeros_like(weight, dtype=torch.bool) for weight in weights_of(model)]

    def check() -> None:
        nonlocal step, pruned_before
        pruner.step()
        step += 1
        masks = pruner.state_dict()
        weights = weights_of(model)
        sizes = [weight.numel() for weight in weights]
        pruned = [
            ~masks.get(f"masks.{n}", torch.ones(w.shape, dtype=bool)) for n, w in zip(LAYERS, weights, strict=True)
        ]
        if scope == "global":
            assert sum(int(p.sum()) for p in pruned) == round(sum(sizes) * SCHEDULE(step))
        else:
            assert [int(p.sum()) for p in pruned] == [round(size * SCHEDULE(step)) for size in sizes]
        assert pruner.sparsity() == sum(int(p.sum()) for p in pruned) / sum(sizes)
        assert pruner.layer_sparsity() == {n: int(p.sum()) / p.numel() for n, p in zip(LAYERS, pruned, strict=True)}
        for weight, now, before in zip(weights, pruned, pruned_before, strict=True):
            assert not (before & ~now).any(), "a pruned weight came back"
            states = states_of(optimizer, weight)
            assert states or name == "sgd"
            for tensor in (weight.detach(), weight.grad, *states):
                assert tensor is not None
                assert not tensor[now].count_nonzero()
                assert not tensor[now].signbit().any()
        pruned_before = pruned

    train(model, optimizer, range(12), check)
    assert pruner.finalize() == pruner.sparsity()
    assert pruner.sparsity() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_training_with_masks_written_out(name: str) -> None:
    model = make_model()
    optimizer = OPTIMIZERS[name](model)
    pruner = ts.prune.MagnitudePruner(model, SCHEDULE, optimizer)
    expected = make_model()
    its_optimizer = OPTIMIZERS[name](expected)
    step = 0
    masks = [torch.ones_like(weight) for weight in weights_of(expected)]

    @torch.no_grad()
    def mask_everything() -> None:
        nonlocal step, masks
        step += 1
        weights = weights_of(expected)
        for weight, mask in zip(weights, masks, strict=True):
            weight.mul_(mask)
        masks = [mask.float() for mask in reference_masks(weights, SCHEDULE(step))]
        for weight, mask in zip(weights, masks, strict=True):
            for tensor in (weight, weight.grad, *states_of(its_optimizer, weight)):
                assert tensor is not None
                tensor.mul_(mask)

    train(model, optimizer, range(12), pruner.step)
    train(expected, its_optimizer, range(12), mask_everything)
    assert_same(model, expected)


@pytest.mark.parametrize("at", [1, 5, 11])
@pytest.mark.parametrize("name", ["sgd_momentum", "adamw_amsgrad", "rmsprop_all"])
def test_resume_to_the_same_bits(name: str, at: int) -> None:
    def make() -> tuple[nn.Module, Optimizer, ts.prune.MagnitudePruner]:
        model = make_model()
        optimizer = OPTIMIZERS[name](model)
        return model, optimizer, ts.prune.MagnitudePruner(model, SCHEDULE, optimizer)

    model, optimizer, pruner = make()
    train(model, optimizer, range(at), pruner.step)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), pruner.state_dict()], file)
    train(model, optimizer, range(at, 14), pruner.step)

    file.seek(0)
    resumed, its_optimizer, its_pruner = make()
    for object_, state in zip((resumed, its_optimizer, its_pruner), torch.load(file, weights_only=True), strict=True):
        object_.load_state_dict(state)
    train(resumed, its_optimizer, range(at, 14), its_pruner.step)
    assert_same(resumed, model)
    assert its_pruner.sparsity() == pruner.sparsity()


def test_deepcopy_goes_on_alone() -> None:
    model = make_model()
    optimizer = OPTIMIZERS["adam"](model)
    pruner = ts.prune.MagnitudePruner(model, SCHEDULE, optimizer)
    train(model, optimizer, range(4), pruner.step)
    other, its_optimizer, its_pruner = copy.deepcopy((model, optimizer, pruner))
    before = copy.deepcopy(model.state_dict())
    train(other, its_optimizer, range(4, 10), its_pruner.step)
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name])
    train(model, optimizer, range(4, 10), pruner.step)
    assert_same(model, other)


def test_prepared_models_ship_the_zeros() -> None:
    torch.manual_seed(0)
    model = ts.models.mobilenet_v1(5, width=0.25, in_channels=3)
    images = torch.rand(4, 3, 16, 16)
    prepared = ts.quant.prepare(model, images)
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-3)
    pruner = ts.prune.MagnitudePruner(prepared, ts.prune.PolynomialSchedule(0, 3, final_sparsity=0.5), optimizer)
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert list(pruner.layer_sparsity()) == layers  # first and last included, under their names in the float model
    for _ in range(4):
        optimizer.zero_grad()
        prepared(images).square().mean().backward()
        optimizer.step()
        pruner.step()
    pruner.finalize()
    zeros = total = 0
    for name in layers:
        weight = prepared.get_submodule(name).weight
        scale, _ = ts.quant.weight_qparams(weight)
        codes = (weight / scale.reshape(-1, *[1] * (weight.dim() - 1))).round()
        assert not codes[weight == 0].any()
        zeros, total = zeros + int((codes == 0).sum()), total + codes.numel()
    assert zeros >= round(total / 2)  # counted in the integers that ship


def test_removed_channels_need_a_new_pruner() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    pruner = ts.prune.MagnitudePruner(model, ts.prune.ConstantSchedule(0.5))
    pruner.step()
    ts.prune.ChannelPruner(model, torch.rand(1, 3, 8, 8)).step()
    with pytest.raises(
        ValueError, match=r"`0` has the shape \[4, 3, 3, 3\], its mask \[8, 3, 3, 3\]; make a new pruner"
    ):
        pruner.step()


def test_nothing_happens_before_the_schedule_begins() -> None:
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    pruner = ts.prune.MagnitudePruner(model, ts.prune.OneShotSchedule(3, 0.5))
    pruner.step()
    pruner.step()
    assert set(pruner.state_dict()) == {"step", "sparsity"}
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name])
    pruner.step()
    assert pruner.sparsity() == 0.5


def test_a_falling_schedule_lets_nothing_grow_back() -> None:
    model = make_model()
    pruner = ts.prune.MagnitudePruner(model, lambda step: 0.5 if step == 1 else 0.1)
    pruner.step()
    pruner.step()
    assert pruner.sparsity() == 0.5


def test_layers_by_name() -> None:
    model = nn.Sequential()
    model.add_module("features", make_model())
    model.add_module("classifier", nn.Linear(5, 2))

    def layers(**arguments: object) -> list[str]:
        pruner = ts.prune.MagnitudePruner(model, ts.prune.ConstantSchedule(0.5), **arguments)  # type: ignore[arg-type]
        return list(pruner.layer_sparsity())

    assert layers() == ["features.0", "features.3", "features.6", "classifier"]
    assert layers(exclude=["features"]) == ["classifier"]
    assert layers(exclude=["features.0", "classifier"]) == ["features.3", "features.6"]
    assert layers(names=["features"], exclude=["features.3"]) == ["features.0", "features.6"]
    with pytest.raises(ValueError, match=r"exclude: no layer .* is called `clasifier` .*; nearest: `classifier`"):
        layers(exclude=["clasifier"])
    with pytest.raises(ValueError, match=r"names: no layer .* is called `features.1` .*; nearest: `features.0`"):
        layers(names=["features.1"])
    with pytest.raises(ValueError, match="no layer is left to prune among 4"):
        layers(exclude=["features", "classifier"])
    with pytest.raises(TypeError, match="exclude must be a sequence of names, got the text 'features'"):
        layers(exclude="features")


def test_a_shared_weight_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    pruner = ts.prune.MagnitudePruner(model, ts.prune.ConstantSchedule(0.5))
    pruner.step()
    assert pruner.layer_sparsity() == {"0": 0.5}


def test_a_single_layer_is_a_model() -> None:
    model = nn.Linear(4, 4)
    pruner = ts.prune.MagnitudePruner(model, ts.prune.ConstantSchedule(0.5))
    pruner.step()
    assert int((model.weight == 0).sum()) == 8


def test_nan_leaves_step_and_masks() -> None:
    model = make_model()
    pruner = ts.prune.MagnitudePruner(model, ts.prune.PolynomialSchedule(0, 3, 0.5))
    pruner.step()
    before = pruner.state_dict()
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = float("nan")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"`3` \(tensors\[1\]\) holds 1 NaN"):
            pruner.step()
    after = pruner.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_bad_schedules_and_scope() -> None:
    model = make_model()
    with pytest.raises(ValueError, match=r"sparsity in \[0, 1\], got 1.5 at step 1"):
        ts.prune.MagnitudePruner(model, lambda step: 1.5).step()
    with pytest.raises(ValueError, match='scope must be "global" or "layer", got \'all\''):
        ts.prune.MagnitudePruner(model, SCHEDULE, scope="all")  # type: ignore[arg-type]


def test_refused_optimisers() -> None:
    model = make_model()
    with pytest.raises(TypeError, match=r"expected a torch.optim.Optimizer, got float"):
        ts.prune.MagnitudePruner(model, SCHEDULE, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="LBFGS keeps state across parameters"):
        ts.prune.MagnitudePruner(model, SCHEDULE, torch.optim.LBFGS(model.parameters()))
    with pytest.raises(ValueError, match="the optimiser holds none of the weights"):
        ts.prune.MagnitudePruner(copy.deepcopy(model), SCHEDULE, OPTIMIZERS["adam"](model))
    optimizer = torch.optim.Adafactor(model.parameters())
    train(model, optimizer, range(1), lambda: None)
    with pytest.raises(ValueError, match="Adafactor keeps `row_var` for `0` as shape"):
        ts.prune.MagnitudePruner(model, SCHEDULE, optimizer)


def test_refused_weights() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="`0` has no weight of its own"):
        ts.prune.MagnitudePruner(model, SCHEDULE)
    ts.prune.MagnitudePruner(model, SCHEDULE, exclude=["0"])
    with pytest.raises(ValueError, match="no layer is left to prune among 0"):
        ts.prune.MagnitudePruner(nn.ReLU(), SCHEDULE)


def test_finalize_ends_it() -> None:
    model = make_model()
    pruner = ts.prune.MagnitudePruner(model, ts.prune.ConstantSchedule(0.5))
    pruner.step()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert pruner.finalize() == pruner.finalize() == 0.5
    assert sum(int((weight == 0).sum()) for weight in weights_of(model)) == round(
        sum(w.numel() for w in weights_of(model)) / 2
    )
    with pytest.raises(RuntimeError, match="the pruner is finalised"):
        pruner.step()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("step"), r"missing \['step'\], unknown \[\]"),
        (lambda s: s.pop("masks.3"), r"missing \['masks.3'\]"),
        (lambda s: s.update({"masks.9": s["step"]}), r"unknown \['masks.9'\]"),
        (
            lambda s: s.update({"masks.3": s["masks.0"]}),
            r"`masks.3` must be bool of shape \[8, 1, 3, 3\], got torch.bool of",
        ),
        (lambda s: s.update({"masks.3": s["masks.3"].float()}), "`masks.3` must be bool"),
        (lambda s: s.update(step=torch.tensor(-1)), "got -1 and 0.5"),
    ],
)
def test_a_bad_state_changes_nothing(change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    model = make_model()
    pruner = ts.prune.MagnitudePruner(model, ts.prune.ConstantSchedule(0.5))
    pruner.step()
    before, state = pruner.state_dict(), pruner.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        pruner.load_state_dict(state)
    assert all(torch.equal(value, before[key]) for key, value in pruner.state_dict().items())
