# SPDX-License-Identifier: BSD-3-Clause
import copy
import io
from collections.abc import Callable

import pytest
import torch
from reference.quant_networks import NETWORKS, Residual, Vgg, example, shake
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import ConvertedModel, FakeQuantize, PreparedModel


def trained(network: Callable[[], nn.Module], images: Callable[[], Tensor] = example) -> PreparedModel:
    """A network with random weights whose quantisers have seen enough to hold what comes."""
    torch.manual_seed(0)
    model = network()
    shake(model)
    prepared = ts.quant.prepare(model, images())
    with torch.no_grad():
        for _ in range(50):
            prepared(images())
    return prepared


def small_images() -> Tensor:
    return torch.randn(16, 1, 28, 28)


BUNDLED = [
    lambda: ts.models.mobilenet_v1(10, in_channels=1, channels=(8, 16, 24), strides=(2, 2, 2)),
    lambda: ts.models.resnet(10, depth=8, in_channels=1, channels=(8, 12, 16)),
]


@pytest.mark.parametrize(
    ("network", "images", "limit"),
    [*((n, example, 1.5) for n in NETWORKS), *((n, small_images, 2.5) for n in BUNDLED)],
)
def test_it_agrees_with_eval(network: Callable[[], nn.Module], images: Callable[[], Tensor], limit: float) -> None:
    """Sums differ in the last bit of a float, so that a value beside a tie may round the other way, rarely."""
    prepared = trained(network, images)
    converted = ts.quant.convert(prepared)
    prepared.eval()
    step = converted.integer_graph.nodes[-1].scale
    x = torch.cat([images() for _ in range(4)])
    with torch.no_grad():
        steps = (converted(x) - prepared(x)).abs() / step
        assert torch.equal(converted(x).argmax(1), prepared(x).argmax(1))
    assert steps.max() <= limit
    assert (steps > 0.5).float().mean() < 0.02


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_hold_what_folded_returns(network: type[nn.Module]) -> None:
    prepared = trained(network)
    state = ts.quant.convert(prepared).state_dict()
    layers = [(name, module) for name, module in prepared.named_modules() if hasattr(module, "folded")]
    assert len(state) == 3 * len(layers)
    for name, layer in layers:
        codes, scale, bias = layer.folded()
        assert state[f"{name}.codes"].dtype == torch.int8
        assert torch.equal(state[f"{name}.codes"], codes)
        assert torch.equal(state[f"{name}.weight_scale"], scale)
        assert torch.equal(state[f"{name}.bias"], bias)


def test_the_model_is_left_as_it_is_and_goes_on_training() -> None:
    prepared = trained(Residual)
    before = copy.deepcopy(prepared.state_dict())
    modes = [module.training for module in prepared.modules()]
    converted = ts.quant.convert(prepared)
    assert [module.training for module in prepared.modules()] == modes and prepared.training
    assert all(torch.equal(before[name], value) for name, value in prepared.state_dict().items())
    x = example()
    first = converted(x)
    optimizer = torch.optim.SGD(prepared.parameters(), 0.5)
    prepared(example()).square().mean().backward()
    optimizer.step()
    assert torch.equal(converted(x), first)
    again = ts.quant.convert(prepared)
    assert not torch.equal(again(x), first)
    with torch.no_grad():
        steps = (again(x) - prepared.eval()(x)).abs() / again.integer_graph.nodes[-1].scale
    assert steps.max() <= 1.5


def test_eval_forwards_change_nothing_that_convert_writes() -> None:
    prepared = trained(Residual).eval()
    checksum = ts.quant.convert(prepared).integer_graph.checksum()
    prepared(100 * example())
    assert ts.quant.convert(prepared).integer_graph.checksum() == checksum


def test_it_runs_any_batch_size() -> None:
    converted = ts.quant.convert(trained(Vgg))
    x = example()
    assert torch.equal(torch.cat([converted(image[None]) for image in x]), converted(x))


def test_copies_and_pickles_compute_the_same() -> None:
    converted = ts.quant.convert(trained(Vgg))
    x = example()
    expected = converted(x)
    assert torch.equal(copy.deepcopy(converted)(x), expected)
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, ConvertedModel) and torch.equal(loaded(x), expected)
    assert loaded.state_dict().keys() == converted.state_dict().keys()


def test_loading_weights_into_it_is_refused() -> None:
    converted = ts.quant.convert(trained(Vgg))
    with pytest.raises(ValueError, match="cannot be changed"):
        converted.load_state_dict(converted.state_dict())


def test_a_float_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a prepared model, got Vgg; call torchslim.quant.prepare"):
        ts.quant.convert(Vgg())


def test_quantisers_that_saw_nothing_are_refused_by_name() -> None:
    prepared = ts.quant.prepare(Vgg(), example())
    with pytest.raises(ValueError, match=r"'conv1.output_fake_quantize' has seen no data"):
        ts.quant.convert(prepared)
    prepared = trained(Vgg)
    fresh = FakeQuantize()
    prepared.fc1.output_fake_quantize.load_state_dict(fresh.state_dict())
    with pytest.raises(ValueError, match=r"'fc1.output_fake_quantize' has seen no data"):
        ts.quant.convert(prepared)


def test_disabled_fake_quant_is_refused_by_name() -> None:
    prepared = trained(Vgg)
    ts.quant.disable_fake_quant(prepared)
    with pytest.raises(ValueError, match=r"disabled in 'conv1.output_fake_quantize'"):
        ts.quant.convert(prepared)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv2.weight", "bn2.running_var", "classifier.bias"])
def test_nan_and_inf_are_refused_by_name(name: str, value: float) -> None:
    prepared = trained(Residual)
    with torch.no_grad():
        prepared.state_dict()[name].view(-1)[0] = value
    with pytest.raises(ValueError, match=f"'{name}' holds NaN or infinity"):
        ts.quant.convert(prepared)


def test_wrong_inputs_are_refused() -> None:
    converted = ts.quant.convert(trained(Vgg))
    with pytest.raises(ValueError, match="shape"):
        converted(torch.zeros(1, 3, 8, 8))
    with pytest.raises(TypeError, match="float32"):
        converted(torch.zeros(1, 3, 16, 16, dtype=torch.float64))
