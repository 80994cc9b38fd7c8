# SPDX-License-Identifier: BSD-3-Clause
import copy
import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from reference.integer_layer import integer_layer
from reference.quant_networks import NETWORKS, Depthwise, Residual, Vgg, example, shake
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import FakeQuantize, PreparedModel, QuantConv2d, QuantLinear


def observed(network: type[nn.Module], batches: int = 10) -> PreparedModel:
    """A prepared network that has seen a few batches, in eval."""
    torch.manual_seed(0)
    model = network()
    shake(model)
    prepared = ts.quant.prepare(model, example())
    with torch.no_grad():
        for _ in range(batches):
            prepared(example())
    return prepared.eval()


class Function(nn.Module):
    """A convolution, then whatever a test wants to try."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def prepare_function(function: Callable[[Tensor], Tensor]) -> PreparedModel:
    return ts.quant.prepare(Function(function), example())


# --- what it keeps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_the_given_model_stays_as_it_is(network: type[nn.Module]) -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    prepared = ts.quant.prepare(model, example())
    prepared(example()).sum().backward()
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_and_buffers_keep_names_and_order(network: type[nn.Module]) -> None:
    model = network()
    prepared = ts.quant.prepare(model, example())
    assert [n for n, _ in prepared.named_parameters()] == [n for n, _ in model.named_parameters()]
    ours = [name for name in prepared.state_dict() if "fake_quantize" not in name]
    assert ours == list(model.state_dict())
    missing, unexpected = prepared.load_state_dict(model.state_dict(), strict=False)
    assert all("fake_quantize" in name for name in missing) and not unexpected


def test_keys_of_the_quantisers() -> None:
    prepared = ts.quant.prepare(Residual(), example())
    owners = [name for name, module in prepared.named_modules() if isinstance(module, FakeQuantize)]
    assert sorted(owners) == [
        "add_fake_quantize",
        "add_fake_quantize_1",
        "classifier.output_fake_quantize",
        "conv1.output_fake_quantize",
        "conv2.output_fake_quantize",
        "input_fake_quantize",
        "shortcut.0.output_fake_quantize",
        "stem.output_fake_quantize",
    ]


def test_bundled_models_use_the_keys_that_cpp_uses() -> None:
    model = ts.models.mobilenet_v2(10, in_channels=3)
    keys = set(ts.quant.prepare(model, torch.zeros(1, 3, 32, 32)).state_dict())
    for owner in (
        "input_fake_quantize",
        "features.0.conv.output_fake_quantize",
        "features.3.project.conv.output_fake_quantize",
        "features.3.add_fake_quantize",
        "classifier.output_fake_quantize",
    ):
        assert f"{owner}.scale" in keys and f"{owner}.zero_point" in keys


def test_the_observer_of_activations_can_be_chosen() -> None:
    prepared = ts.quant.prepare(Residual(), example(), {"observer": ts.quant.MovingAverageObserver(0.5)})
    quantizers = [module for module in prepared.modules() if isinstance(module, FakeQuantize)]
    assert {str(q.observer) for q in quantizers} == {"MovingAverageObserver(averaging_constant=0.5)"}
    prepared = ts.quant.prepare(Residual(), example(), {"observer": "min_max"})
    x = example()
    prepared(10 * x)
    prepared(x)
    assert prepared.input_fake_quantize.max_val == 10 * x.max()
    with pytest.raises(ValueError, match=r"observer must be one of moving_average, min_max, .*, got 'median'"):
        ts.quant.prepare(Residual(), example(), {"observer": "median"})


def test_training_mode_is_kept() -> None:
    model = Residual().eval()
    model.bn1.train()
    prepared = ts.quant.prepare(model, example())
    assert not prepared.training and prepared.bn1.training and not prepared.conv1.training
    assert not prepared.classifier.training


def test_parameters_that_forward_does_not_use_are_kept() -> None:
    model = Vgg()
    model.auxiliary = nn.Linear(3, 2)
    assert "auxiliary.weight" in ts.quant.prepare(model, example()).state_dict()


# --- what it makes ----------------------------------------------------------------------------------------------------


def layers_of(prepared: PreparedModel) -> dict[str, str]:
    """Each layer with weights and its fused activation."""
    kinds = (QuantConv2d, QuantLinear)
    return {
        name: module.output_fake_quantize.activation
        for name, module in prepared.named_modules()
        if isinstance(module, kinds)
    }


def test_activations_and_batch_norms_are_fused_in_every_spelling() -> None:
    vgg = ts.quant.prepare(Vgg(), example())
    assert layers_of(vgg) == {"conv1": "relu", "conv2": "relu", "fc1": "relu", "fc2": "none"}
    depthwise = ts.quant.prepare(Depthwise(), example())
    assert layers_of(depthwise) == {"0": "relu6", "3": "relu6", "7": "none", "13": "none"}
    assert getattr(depthwise, "7").batch_norm is getattr(depthwise, "8")
    residual = ts.quant.prepare(Residual(), example())
    assert layers_of(residual)["conv2"] == "none"
    assert residual.add_fake_quantize.activation == "none"
    assert residual.add_fake_quantize_1.activation == "relu"


def test_disabled_fake_quant_computes_what_the_model_computes() -> None:
    for network in NETWORKS:
        torch.manual_seed(0)
        model = network().eval()
        shake(model)
        prepared = ts.quant.prepare(model, example())
        ts.quant.disable_fake_quant(prepared)
        x = example()
        torch.testing.assert_close(prepared(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_eval_is_the_integer_network(network: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = observed(network)
    x = example()
    with torch.no_grad():
        ours = prepared(x)
        for kind in (QuantConv2d, QuantLinear):
            monkeypatch.setattr(kind, "forward", integer_layer)
        integers = prepared(x)
    step = prepared.get_submodule([*layers_of(prepared)][-1]).output_fake_quantize.scale
    assert (ours - integers).abs().max() <= 1.5 * step
    assert torch.equal(ours.argmax(1), integers.argmax(1))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_trace_agrees_with_eval(network: type[nn.Module]) -> None:
    prepared = observed(network)
    x = example()
    with torch.no_grad():
        traced = torch.jit.trace(prepared, x, check_trace=False)
        step = prepared.get_submodule([*layers_of(prepared)][-1]).output_fake_quantize.scale
        steps = (traced(x) - prepared(x)).abs() / step  # a trace is for capture: it leaves ties of averages to chance
        assert steps.max() <= 10 and steps.mean() < 1


def test_every_activation_lies_on_its_grid() -> None:
    prepared = observed(Depthwise)
    pooled = []
    prepared.global_avg_pool.register_forward_hook(lambda m, i, y: pooled.append(y))
    with torch.no_grad():
        prepared(example())
    steps = pooled[0] / getattr(prepared, "7").output_fake_quantize.scale
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)


def test_it_trains_and_learns() -> None:
    torch.manual_seed(0)
    prepared = ts.quant.prepare(Residual(), example())
    optimizer = torch.optim.AdamW(prepared.parameters(), 1e-2)
    x, target = example(), torch.arange(8) % 5
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(prepared(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_an_optimiser_step_shows_in_eval() -> None:
    prepared = observed(Residual)
    x = example()
    before = prepared(x)
    with torch.no_grad():
        prepared.classifier.weight.mul_(-1)
        prepared.classifier.bias.mul_(-1)
    assert not torch.equal(prepared(x), before)


def test_channels_last_gives_the_same() -> None:
    prepared = observed(Depthwise)
    x = example()
    with torch.no_grad():
        expected = prepared(x)
        last = prepared.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    step = getattr(prepared, "13").output_fake_quantize.scale
    assert (last - expected).abs().max() <= 2.5 * step


@pytest.mark.parametrize("network", NETWORKS)
def test_copies_pickles_and_checkpoints_compute_the_same(network: type[nn.Module]) -> None:
    prepared = observed(network)
    x = example()
    expected = prepared(x)
    assert torch.equal(copy.deepcopy(prepared)(x), expected)
    file = io.BytesIO()
    torch.save(prepared, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), expected)
    file = io.BytesIO()
    torch.save(prepared.state_dict(), file)
    file.seek(0)
    fresh = ts.quant.prepare(network(), example()).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x), expected)


def test_a_copy_is_independent() -> None:
    prepared = observed(Residual)
    copied = copy.deepcopy(prepared)
    x = example()
    expected = prepared(x)
    copied.train()
    copied(10 * x).sum().backward()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(prepared(x), expected)
    assert all(p.grad is None for p in prepared.parameters())


def test_the_example_shape_is_remembered_and_the_batch_size_is_free() -> None:
    prepared = ts.quant.prepare(Vgg(), torch.zeros(2, 3, 16, 16))
    assert prepared.example_shape == (2, 3, 16, 16)
    assert prepared(torch.zeros(5, 3, 16, 16)).shape == (5, 5)


# --- switches ---------------------------------------------------------------------------------------------------------


def test_observers_can_be_stopped_and_started() -> None:
    prepared = observed(Vgg).train()
    ts.quant.disable_observer(prepared)
    before = prepared.input_fake_quantize.scale.clone()
    prepared(100 * example())
    assert torch.equal(prepared.input_fake_quantize.scale, before)
    ts.quant.enable_observer(prepared)
    prepared(100 * example())
    assert prepared.input_fake_quantize.scale > before


def test_fake_quant_can_be_stopped_and_started() -> None:
    prepared = observed(Vgg)
    x = example()
    expected = prepared(x)
    ts.quant.disable_fake_quant(prepared)
    assert not torch.equal(prepared(x), expected)
    ts.quant.enable_fake_quant(prepared)
    assert torch.equal(prepared(x), expected)


def test_frozen_batch_norms_stay_frozen_through_train_calls_and_copies() -> None:
    prepared = observed(Residual)
    ts.quant.freeze_batch_norm(prepared)
    prepared = copy.deepcopy(prepared).train()
    mean = prepared.bn1.running_mean.clone()
    prepared(example()).sum().backward()
    assert torch.equal(prepared.bn1.running_mean, mean)
    assert prepared.bn1.weight.grad is not None
    ts.quant.freeze_batch_norm(prepared, frozen=False)
    prepared(example())
    assert not torch.equal(prepared.bn1.running_mean, mean)
    with pytest.raises(TypeError, match="expected a prepared model, got Vgg"):
        ts.quant.freeze_batch_norm(Vgg())


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean([-1, -2], keepdim=True),
        lambda x: torch.mean(x, dim=(2, 3)),
        lambda x: F.adaptive_avg_pool2d(x, (1, 1)).flatten(1),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, kernel_size=3, stride=2, padding=1),
        lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.contiguous().view(x.size(0), 3 * 16 * 16),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: torch.relu(F.max_pool2d(x, 2)),
        lambda x: F.relu6(F.max_pool2d(x, 2)),
        lambda x: F.max_pool2d(x, 2).relu_(),
        lambda x: x + F.relu(x),
        lambda x: torch.add(x, x),
        lambda x: F.relu(x.add(x)),
        lambda x: F.hardtanh(x, 0.0, 6.0),
        lambda x: F.dropout(x, 0.5, training=False),
    ],
)
def test_a_form_computes_what_it_did(function: Callable[[Tensor], Tensor]) -> None:
    model = Function(function).eval()
    prepared = ts.quant.prepare(model, example())
    x = example()
    ts.quant.disable_fake_quant(prepared)
    torch.testing.assert_close(prepared(x), model(x), rtol=1e-5, atol=1e-5)
    ts.quant.enable_fake_quant(prepared)
    prepared.train()(x)
    prepared.eval()
    step = prepared.conv.output_fake_quantize.scale
    assert (prepared(x) - model(x)).abs().max() < 8 * step


def test_later_readers_of_an_overwritten_tensor_read_the_result() -> None:
    def overwrite(x: Tensor) -> Tensor:
        y = F.max_pool2d(x, 1)
        z = F.relu_(y)
        return y + z  # both are the ReLU's result

    model = Function(overwrite).eval()
    prepared = ts.quant.prepare(model, example())
    ts.quant.disable_fake_quant(prepared)
    x = example()
    torch.testing.assert_close(prepared(x), model(x))


def test_a_batch_norm_or_activation_with_another_reader_is_not_fused() -> None:
    prepared = prepare_function(lambda x: F.relu(x) + x)
    assert prepared.conv.output_fake_quantize.activation == "none"
    model = Function(nn.BatchNorm2d(3))
    assert ts.quant.prepare(model, example()).conv.batch_norm is not None


def test_dropout_follows_the_mode_in_functional_form() -> None:
    prepared = observed(Vgg, batches=2)
    x = example()
    assert torch.equal(prepared(x), prepared(x))
    prepared.train()
    assert not torch.equal(prepared(x), prepared(x))


# --- refusals ---------------------------------------------------------------------------------------------------------


class TwiceUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "expected running statistics"),
        (lambda x: (x, x), "expected the model to return one tensor"),
        (lambda x: x if x.sum() > 0 else -x, r"cannot be traced \(test_prepare.py:\d+"),
        (lambda x: x[:, :, :99].reshape(8, 100), "does not run on the example input"),
    ],
)
def test_what_int8_lacks_is_refused_by_name(function: Callable[[Tensor], Tensor], message: str) -> None:
    model = Function(function)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        ts.quant.prepare(model, example())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_layer_used_twice_has_a_grid_for_each_use_and_one_weight() -> None:
    prepared = ts.quant.prepare(TwiceUsed(), example())
    assert len(list(prepared.parameters())) == 2
    assert prepared.conv.weight is prepared.conv_again.weight
    x = example()
    prepared(x).sum().backward()
    assert prepared.conv.output_fake_quantize.scale != prepared.conv_again.output_fake_quantize.scale
    assert torch.equal(ts.quant.convert(prepared.eval())(x), prepared(x))


def test_other_work_in_training_than_in_eval_is_refused() -> None:
    class Auxiliary(Vgg):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + y if self.training else y

    with pytest.raises(ValueError, match="different things in training and in eval"):
        ts.quant.prepare(Auxiliary(), example())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_are_refused_by_name(value: float) -> None:
    model = Residual()
    with torch.no_grad():
        model.shortcut[0].weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"'shortcut.0.weight' holds NaN or infinity"):
        ts.quant.prepare(model, example())


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="unknown config key 'width'"):
        ts.quant.prepare(Vgg(), example(), {"width": 4})
    with pytest.raises(TypeError, match=r"'conv1.weight' is torch.float64"):
        ts.quant.prepare(Vgg().double(), example())
    with pytest.raises(TypeError, match=r"float32 example input, got torch.int64"):
        ts.quant.prepare(Vgg(), torch.zeros(1, 3, 16, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected one input tensor as example, got \(Tensor, Tensor\)"):
        ts.quant.prepare(Vgg(), (example(), example()))
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module, got function"):
        ts.quant.prepare(F.relu, example())
    with pytest.raises(ValueError, match="holds a quantiser already"):
        ts.quant.prepare(ts.quant.prepare(Vgg(), example()), example())


def test_hooks_and_parametrizations_are_refused() -> None:
    model = Vgg()
    torch.nn.utils.parametrizations.weight_norm(model.conv2)
    with pytest.raises(ValueError, match=r"layer 'conv2'.*hooks or parametrizations"):
        ts.quant.prepare(model, example())
