# SPDX-License-Identifier: BSD-3-Clause
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts
from torchslim import _C


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.relu(self.bn1(self.conv1(x))))
        return torch.relu(x + y)


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(10, 10, 3, groups=10, padding=1), nn.BatchNorm2d(10), nn.ReLU6(),
        nn.Conv2d(10, 7, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(7 * 4 * 4, 6), nn.ReLU(), nn.Linear(6, 5),
    )  # fmt: skip


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        Residual(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "chain": chain,
    "residual": residual,
    "mobilenet_v1": lambda: ts.models.mobilenet_v1(5, width=0.25),
    "mobilenet_v2": lambda: ts.models.mobilenet_v2(
        5, width=0.35, stages=((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2)), last_channels=64
    ),
    "resnet": lambda: ts.models.resnet(5, depth=6, channels=(8, 16)),
}
EXAMPLE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def make(network: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[network]()
    with torch.no_grad():  # statistics and scales that are not all alike
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_()  # type: ignore[union-attr]
    return model


def removed(cut: dict[str, Any]) -> list[int]:
    return sorted(set(range(cut["channels"])) - set(cut["keep"]))


@torch.no_grad()
def zero_channels(model: nn.Module, plan: dict[str, Any], optimizer: torch.optim.Optimizer | None = None) -> None:
    """What the plan removes, made zero in place: the network that the smaller one must equal."""
    for cut in plan["cuts"]:
        for layer in (cut["layer"], *cut["batch_norms"], *cut["depthwise"]):
            for parameter in model.get_submodule(layer).parameters():
                states = [] if optimizer is None else optimizer.state[parameter].values()
                for tensor in (parameter, *(state for state in states if state.shape == parameter.shape)):
                    tensor[removed(cut)] = 0


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, after: Callable[[], None] = lambda: None
) -> Tensor:
    model.train()
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(4, 3, 16, 16, generator=generator, dtype=next(model.parameters()).dtype)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), torch.randint(5, (4,), generator=generator))
        loss.backward()
        optimizer.step()
        after()
    return loss  # kept alive: its graph holds nodes of the old shapes


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
    attributes = [{k: v for k, v in vars(m).items() if isinstance(v, int)} for m in model.modules()]
    return copy.deepcopy((model.state_dict(), optimizer.state_dict(), attributes))


def assert_unchanged(before: tuple[Any, ...], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state, optimizer_state, attributes = snapshot(model, optimizer)
    assert all(torch.equal(state[key], before[0][key]) for key in before[0])
    assert attributes == before[2]
    for index, values in before[1]["state"].items():
        for key, value in values.items():
            now = optimizer_state["state"][index][key]
            assert torch.equal(now, value) if torch.is_tensor(value) else now == value


@pytest.mark.parametrize(("network", "criterion"), [("chain", "l2"), *((network, "l1") for network in NETWORKS)])
def test_removed_equals_zeroed(network: str, criterion: str) -> None:
    model = make(network).eval()
    pruner = ts.prune.ChannelPruner(model, EXAMPLE, ratio=0.4, criterion=criterion)  # type: ignore[arg-type]
    plan = json.loads(pruner.plan())
    assert plan["format"] == "torchslim.channel_plan"
    assert plan["version"] == 1
    zeroed = copy.deepcopy(model).double()
    zero_channels(zeroed, plan)
    before = sum(parameter.numel() for parameter in model.parameters())
    pruner.step()
    assert json.loads(pruner.plan()) == plan
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model.double()(images), zeroed(images), rtol=1e-12, atol=1e-12)
    # Everything that the plan names is gone, and nothing else.
    gone = 0
    for cut in plan["cuts"]:
        assert len(cut["keep"]) == cut["channels"] - round(cut["channels"] * 0.4)
    parameters = dict(model.named_parameters())
    for name, whole in zeroed.named_parameters():
        gone += whole.numel() - parameters[name].numel()
    assert sum(parameter.numel() for parameter in model.parameters()) == before - gone
    assert gone > 0


def test_which_filters_go() -> None:
    model = make("residual")
    plan = json.loads(ts.prune.ChannelPruner(model, EXAMPLE).plan())
    # The first and last convolution of the residual block meet its add; its inner one and the one after it do not.
    assert [cut["layer"] for cut in plan["cuts"]] == ["1.conv1", "2"]
    assert plan["cuts"][0]["batch_norms"] == ["1.bn1"]
    assert plan["cuts"][0]["consumers"] == [{"layer": "1.conv2", "kind": "conv2d", "repeat": 1}]
    assert plan["cuts"][1]["consumers"] == [{"layer": "6", "kind": "linear", "repeat": 1}]
    sizes = model[1].conv1.weight.detach().abs().sum((1, 2, 3))
    assert plan["cuts"][0]["keep"] == sorted(sizes.argsort()[6:].tolist())

    model = make("chain")
    plan = json.loads(ts.prune.ChannelPruner(model, EXAMPLE).plan())
    assert [cut["layer"] for cut in plan["cuts"]] == ["0", "7"]
    assert plan["cuts"][1]["consumers"] == [{"layer": "11", "kind": "linear", "repeat": 16}]
    with pytest.raises(ValueError, match="criterion bn needs a batch norm with weights after `7`"):
        ts.prune.ChannelPruner(model, EXAMPLE, criterion="bn")


def test_batch_norm_criterion() -> None:
    model = make("chain")
    plan = json.loads(ts.prune.ChannelPruner(model, EXAMPLE, criterion="bn", exclude=["7"]).plan())
    (cut,) = plan["cuts"]
    assert cut["depthwise"] == ["4"]
    assert cut["batch_norms"] == ["1", "5"]
    assert cut["keep"] == sorted(model[1].weight.abs().argsort()[5:].tolist())


@pytest.mark.parametrize("network", ["chain", "mobilenet_v1", "resnet"])
@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3),
        lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, eps=1e-3, amsgrad=True),
        lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3, eps=1e-3, momentum=0.9, centered=True),
    ],
)
def test_training_goes_on_with_the_optimiser_state(network: str, make_optimizer: Any) -> None:
    model = make(network)
    plan = json.loads(ts.prune.ChannelPruner(model, EXAMPLE, ratio=0.5).plan())
    model.double()
    optimizer = make_optimizer(model)
    loss = train(model, optimizer, 3)
    parameters = list(model.parameters())
    zeroed, its_optimizer = copy.deepcopy((model, optimizer))
    zero_channels(zeroed, plan, its_optimizer)
    ts.prune.apply_plan(model, plan, optimizer)
    assert loss.requires_grad
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    for group in optimizer.param_groups:
        assert all(any(p is q for q in parameters) for p in group["params"])
    for parameter in parameters:
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape
        for state in optimizer.state[parameter].values():
            assert state.numel() == 1 or state.shape == parameter.shape

    # From the same state on, both train alike, but for the order in which sums are rounded.
    train(model, optimizer, 3)
    train(zeroed, its_optimizer, 3, lambda: zero_channels(zeroed, plan, its_optimizer))
    ts.prune.apply_plan(zeroed, plan, its_optimizer)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, zeroed.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_plan_repeats_on_a_fresh_model() -> None:
    model = make("mobilenet_v2")
    pruner = ts.prune.ChannelPruner(model, EXAMPLE, ratio=0.25)
    pruner.step()
    pruner.step()  # two steps, one plan
    fresh = NETWORKS["mobilenet_v2"]()
    ts.prune.apply_plan(fresh, pruner.plan())
    fresh.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(fresh.eval()(images), model.eval()(images))
    for a, b in zip(fresh.modules(), model.modules(), strict=True):
        assert {k: v for k, v in vars(a).items() if isinstance(v, int)} == {
            k: v for k, v in vars(b).items() if isinstance(v, int)
        }
    ts.graph.capture(fresh, EXAMPLE)


def test_prepared_models_get_smaller_too() -> None:
    images = torch.rand(4, 3, 16, 16)
    model = ts.quant.prepare(make("mobilenet_v1"), images)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 1)
    before = sum(parameter.numel() for parameter in model.parameters())
    pruner = ts.prune.ChannelPruner(model, images, ratio=0.25, optimizer=optimizer)
    pruner.step()
    assert sum(parameter.numel() for parameter in model.parameters()) < 0.7 * before
    train(model, optimizer, 1)
    ts.graph.capture(model.eval(), images)


def test_round_to_and_exclude() -> None:
    model = make("mobilenet_v1")
    plan = json.loads(ts.prune.ChannelPruner(model, EXAMPLE, ratio=0.3, round_to=8).plan())
    assert plan["cuts"]
    assert all(len(cut["keep"]) % 8 == 0 for cut in plan["cuts"])
    model = make("chain")
    plan = json.loads(ts.prune.ChannelPruner(model, EXAMPLE, exclude=["0"]).plan())
    assert [cut["layer"] for cut in plan["cuts"]] == ["7"]
    with pytest.raises(ValueError, match=r"exclude: no layer .* `8` .*nearest: `0`, `7`"):
        ts.prune.ChannelPruner(model, EXAMPLE, exclude=["8"])


def test_channels_last_stays() -> None:
    model = make("chain").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ts.prune.ChannelPruner(model, EXAMPLE).step()
    assert model[7].weight.is_contiguous(memory_format=torch.channels_last)


def test_refused_optimisers_touch_nothing() -> None:
    model = make("chain")
    adafactor = torch.optim.Adafactor(model.parameters())
    train(model, adafactor, 1)
    before = snapshot(model, adafactor)
    with pytest.raises(ValueError, match=r"Adafactor keeps `row_var` for `0\.weight` as shape"):
        ts.prune.ChannelPruner(model, EXAMPLE, optimizer=adafactor)
    plan = ts.prune.ChannelPruner(model, EXAMPLE).plan()
    with pytest.raises(ValueError, match="Adafactor keeps `row_var`"):
        ts.prune.apply_plan(model, plan, adafactor)
    assert_unchanged(before, model, adafactor)
    with pytest.raises(ValueError, match="LBFGS keeps state across parameters"):
        ts.prune.ChannelPruner(model, EXAMPLE, optimizer=torch.optim.LBFGS(model.parameters()))
    with pytest.raises(ValueError, match="the optimiser holds none of the weights"):
        ts.prune.ChannelPruner(make("chain"), EXAMPLE, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize("fail_at", [1, 7, 15])
def test_nothing_half_done_after_an_error(fail_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("chain")
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 2)
    pruner = ts.prune.ChannelPruner(model, EXAMPLE, optimizer=optimizer)
    before = snapshot(model, optimizer)
    gradients = [copy.deepcopy(parameter.grad) for parameter in model.parameters()]
    calls = 0

    def replace_data(tensor: Tensor, data: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == fail_at:
            raise KeyboardInterrupt
        original(tensor, data)

    original = _C.prune.replace_data
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_C.prune, "replace_data", replace_data)
        pruner.step()
    assert_unchanged(before, model, optimizer)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert gradient is not None and parameter.grad is not None
        assert torch.equal(gradient, parameter.grad)
    pruner.step()
    train(model, optimizer, 1)


def change(plan: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**plan, "cuts": [{**plan["cuts"][0], **fields}, *plan["cuts"][1:]]}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: {**p, "version": 2}, "expected version 1, got 2"),
        (lambda p: {**p, "format": "x"}, "expected the format `torchslim.channel_plan`, got `x`"),
        (lambda p: {k: p[k] for k in ("format", "version")}, "the field `cuts` is missing"),
        (lambda p: {**p, "more": 1}, "unknown or repeated field `more`"),
        (lambda p: change(p, keep=[]), "`keep` of `0`: at least one filter must stay"),
        (lambda p: change(p, keep=[3, 2]), "filters must ascend"),
        (lambda p: change(p, keep=[0, 10]), "10 is not below channels 10"),
        (lambda p: change(p, layer="nowhere"), "no layer `nowhere`"),
        (lambda p: change(p, layer="1"), "`1` is used as conv2d and as batch_norm2d"),
        (lambda p: change(p, layer="2"), "`2` must be a conv2d with parameters of its own, got ReLU"),
        (lambda p: change(p, channels=20), "made for a `0` with 20 filters, the model's has 10"),
        (lambda p: change(p, depthwise=["7"]), "`7` is used as depthwise conv2d and as conv2d"),
        (lambda p: json.dumps(p)[:-1], "expected `}`"),
        (lambda p: json.dumps(p) + "x", "text follows"),
    ],
)
def test_a_bad_plan_changes_nothing(edit: Callable[[dict[str, Any]], Any], message: str) -> None:
    model = make("chain")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = json.loads(ts.prune.ChannelPruner(model, EXAMPLE).plan())
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match=message):
        ts.prune.apply_plan(model, edit(plan), optimizer)
    assert_unchanged(before, model, optimizer)


def test_bad_arguments() -> None:
    model = make("chain")
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\), got 1"):
        ts.prune.ChannelPruner(model, EXAMPLE, ratio=1.0)
    with pytest.raises(ValueError, match="round_to must be >= 1, got 0"):
        ts.prune.ChannelPruner(model, EXAMPLE, round_to=0)
    with pytest.raises(ValueError, match='criterion must be "l1", "l2" or "bn", got "taylor"'):
        ts.prune.ChannelPruner(model, EXAMPLE, criterion="taylor")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exclude must be a sequence of names, got '0'"):
        ts.prune.ChannelPruner(model, EXAMPLE, exclude="0")
    with pytest.raises(ValueError, match="no layer is left to prune among 0"):
        ts.prune.ChannelPruner(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), EXAMPLE)
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    with pytest.raises(ValueError, match=r"NaN|not finite"):
        ts.prune.ChannelPruner(model, EXAMPLE)


def test_a_layer_that_runs_twice_keeps_its_filters() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.c(torch.relu(self.b(torch.relu(self.b(torch.relu(self.a(x)))))))
            return y

    with pytest.raises(ValueError, match="no layer is left to prune among 0"):
        ts.prune.ChannelPruner(Twice(), EXAMPLE)
