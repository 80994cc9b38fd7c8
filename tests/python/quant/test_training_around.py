# SPDX-License-Identifier: BSD-3-Clause
"""What a prepared model lives through in training scripts: mixed precision, compilers, copies, checkpoints."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference.quant_networks import NETWORKS, Residual, example
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import torchslim as ts
from torchslim import _C
from torchslim.quant import FakeQuantize, PreparedModel

Optimizers = dict[str, Callable[..., torch.optim.Optimizer]]
OPTIMIZERS: Optimizers = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, 1e-2),
}
LABELS = torch.arange(8) % 5


def made(network: type[nn.Module], seed: int = 0) -> PreparedModel:
    torch.manual_seed(seed)
    return ts.quant.prepare(network().train(), example())


def without_dropout(model: PreparedModel) -> PreparedModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def batch(seed: int) -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
    losses = []
    for seed in seeds:
        torch.manual_seed(seed)  # dropout
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch(seed)), LABELS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_states(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# --- mixed precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_it_trains_under_autocast(network: type[nn.Module]) -> None:
    """Near the float32 step: bfloat16 has 8 bits, and every quantiser makes a step of what it rounds away."""
    plain = without_dropout(made(network))
    mixed = copy.deepcopy(plain)
    F.cross_entropy(plain(batch(0)), LABELS).backward()
    with torch.autocast("cpu", torch.bfloat16):
        y = mixed(batch(0))
        loss = F.cross_entropy(y, LABELS)
    loss.backward()
    assert y.dtype == torch.bfloat16
    expected, actual = gradients(plain), gradients(mixed)
    assert expected.keys() == actual.keys()
    for name, gradient in actual.items():
        assert gradient.dtype == torch.float32
        similarity = F.cosine_similarity(gradient.flatten(), expected[name].flatten(), 0)
        if gradient.abs().max() > 1e-3:  # smaller ones are what rounding left of a sum that cancels
            assert similarity > 0.8, name
    for name, tensor in mixed.named_buffers():
        assert tensor.dtype == dict(plain.named_buffers())[name].dtype, name
        if name.endswith("max_val"):
            torch.testing.assert_close(tensor, dict(plain.named_buffers())[name], rtol=0.05, atol=0.05)


def test_autocast_trains_to_a_lower_loss_and_eval_stays_exact() -> None:
    model = made(Residual)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(batch(0)), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    model.eval()
    expected = model(batch(1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = model(batch(1))
    assert torch.equal(inside.float(), expected)
    assert torch.equal(inside.float().argmax(1), ts.quant.convert(model)(batch(1)).argmax(1))


# --- several forwards for one step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_accumulate(network: type[nn.Module]) -> None:
    """Two backwards add up, and so does one backward of two forwards: a later forward does not disturb an earlier."""
    model = without_dropout(made(network))
    model(batch(9))
    ts.quant.disable_observer(model)  # so that the order of forwards does not matter
    apart = []
    for seed in range(2):
        model.zero_grad()
        F.cross_entropy(model(batch(seed)), LABELS).backward()
        apart.append(gradients(model))
    ts.quant.enable_observer(model)
    for at_once in (False, True):
        copied = copy.deepcopy(model)
        ts.quant.disable_observer(copied)
        copied.zero_grad()
        losses = []
        for seed in range(2):
            losses.append(F.cross_entropy(copied(batch(seed)), LABELS))
            if not at_once:
                losses[-1].backward()
        if at_once:
            (losses[0] + losses[1]).backward()
        for name, gradient in gradients(copied).items():
            torch.testing.assert_close(gradient, apart[0][name] + apart[1][name])


def test_a_forward_that_moves_the_grids_leaves_an_earlier_graph_alone() -> None:
    """With observers on, the second forward writes to the buffers that the first one read."""
    alone, model = (made(Residual) for _ in range(2))
    F.cross_entropy(alone(batch(0)), LABELS).backward()
    first = F.cross_entropy(model(batch(0)), LABELS)
    model(100 * batch(1))
    first.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, gradients(alone)[name], msg=name)


# --- compilers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_a_compiled_model_trains_alike_as_one_graph(network: type[nn.Module]) -> None:
    torch.compiler.reset()
    eager = without_dropout(made(network))
    compiled_model = copy.deepcopy(eager)
    compiled = torch.compile(compiled_model, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        expected, actual = eager(batch(seed)), compiled(batch(seed))
        torch.testing.assert_close(actual, expected)
        F.cross_entropy(expected, LABELS).backward()
        F.cross_entropy(actual, LABELS).backward()
    expected_gradients = gradients(eager)
    for name, gradient in gradients(compiled_model).items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-5, msg=name)
    for name, tensor in compiled_model.state_dict().items():
        torch.testing.assert_close(tensor, eager.state_dict()[name], msg=name)


def test_a_compiled_model_evaluates_alike() -> None:
    """Its weights are folded outside the graph, as they are integers."""
    torch.compiler.reset()
    model = made(Residual)
    model(batch(0))
    model.eval()
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(batch(5)), model(batch(5)))


# --- copies and averages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_a_copy_in_the_middle_trains_on_bit_for_bit(network: type[nn.Module]) -> None:
    model = made(network)
    train(model, OPTIMIZERS["sgd"](model.parameters()), range(3))
    copied = copy.deepcopy(model)
    for each in (model, copied):
        train(each, OPTIMIZERS["adam"](each.parameters()), range(3, 6))
    assert_equal_states(model, copied)


def averaged_while_training(model: nn.Module, steps: int = 6, **how: object) -> AveragedModel:
    average = AveragedModel(model, **how)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for seed in range(steps):
        train(model, optimizer, range(seed, seed + 1))
        average.update_parameters(model)
    return average


@pytest.mark.parametrize("multi", [False, True])
def test_an_average_of_weights_has_the_models_grids(multi: bool) -> None:
    model = made(Residual)
    how = {"multi_avg_fn": get_ema_multi_avg_fn(0.9)} if multi else {"avg_fn": get_ema_avg_fn(0.9)}
    average = averaged_while_training(model, **how)
    quantizers = zip(model.modules(), average.module.modules(), strict=True)
    for trained, averaged in quantizers:
        if isinstance(trained, FakeQuantize):
            assert_equal_states(trained, averaged)
    assert not torch.equal(average.module.conv1.weight, model.conv1.weight)
    ts.quant.convert(average.module.eval())


@pytest.mark.parametrize("how", [{}, {"avg_fn": get_ema_avg_fn(0.9)}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}])
def test_an_average_of_buffers_too_has_grids_of_the_average_ranges(how: dict[str, object]) -> None:
    """PyTorch cuts averages of integers towards zero: `update_qparams` makes the zero points right again."""
    model = made(Residual)
    average = averaged_while_training(model, 12, use_buffers=True, **how)
    ts.quant.update_qparams(average)
    for module in average.modules():
        if isinstance(module, FakeQuantize):
            scale, zero_point = module.calculate_qparams()
            assert torch.equal(module.scale, scale) and torch.equal(module.zero_point, zero_point)
            assert module.observer_enabled.item() == 1 and module.fake_quant_enabled.item() == 1
    average.eval()
    x = batch(20)
    step = average.module.classifier.output_fake_quantize.scale
    assert (ts.quant.convert(average.module)(x) - average(x)).abs().max() <= 1.5 * step


def test_an_average_of_buffers_is_wrong_without_update_qparams() -> None:
    """The reason for the call, as PyTorch 2.13 is; it may go once this fails."""
    model = made(Residual)
    average = averaged_while_training(model, 12, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    wrong = [
        name
        for name, module in average.named_modules()
        if isinstance(module, FakeQuantize) and not torch.equal(module.zero_point, module.calculate_qparams()[1])
    ]
    assert wrong


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_resumes_bit_for_bit(network: type[nn.Module], optimizer: str) -> None:
    make = OPTIMIZERS[optimizer]
    through = made(network)
    losses = train(through, make(through.parameters()), range(6))

    stopped = made(network)
    first = make(stopped.parameters())
    head = train(stopped, first, range(3))
    file = io.BytesIO()
    torch.save({"model": stopped.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)

    resumed = made(network, seed=1)
    second = make(resumed.parameters())
    resumed.load_state_dict(loaded["model"])
    second.load_state_dict(loaded["optimizer"])
    assert head + train(resumed, second, range(3, 6)) == losses
    assert_equal_states(resumed, through)


def test_switches_are_part_of_a_checkpoint() -> None:
    model = made(Residual)
    model(batch(0))
    ts.quant.disable_observer(model)
    resumed = made(Residual, seed=1)
    resumed.load_state_dict(model.state_dict())
    before = resumed.input_fake_quantize.max_val.clone()
    resumed(100 * batch(1))
    assert torch.equal(resumed.input_fake_quantize.max_val, before)


# --- the other language -----------------------------------------------------------------------------------------------


def test_training_goes_on_in_cpp_and_back(tmp_path: Path) -> None:
    """Python trains, C++ takes a step from the file, Python loads C++'s file: all tensors equal at each change."""
    file = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    model = ts.quant.prepare(ts.models.mobilenet_v2(5, 0.25, 3, input_size=28, last_channels=64), example())
    network = _C.models.mobilenet_v2(5, 0.25, 3, 28, 64)
    network.prepare()
    train(model, OPTIMIZERS["sgd"](model.parameters()), range(3))
    ts.models.save_weights(model, file)
    state = dict(network.state())
    _C.models.load_weights(network.state(), str(file))
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name

    weights = [tensor for tensor in state.values() if tensor.requires_grad]
    optimizer = torch.optim.Adam(weights, 1e-2)
    before = {name: tensor.detach().clone() for name, tensor in state.items()}
    F.cross_entropy(network.forward(batch(3)), LABELS).backward()
    optimizer.step()
    assert not torch.equal(state["input_fake_quantize.max_val"], before["input_fake_quantize.max_val"])
    assert not torch.equal(state["classifier.weight"], before["classifier.weight"])

    ts.models.save_tensors(file, state)
    ts.models.load_weights(model, file)
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    network.train(False)
    assert torch.equal(model.eval()(batch(4)), network.forward(batch(4)))
