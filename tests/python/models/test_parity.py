# SPDX-License-Identifier: BSD-3-Clause
"""The C++ networks beside the Python ones: same keys, same initial weights, same outputs and gradients."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchslim import _C, quant
from torchslim.models import load_weights, mobilenet_v1, mobilenet_v2, resnet, save_tensors

# Each pair is one network in Python and in C++.
PAIRS = {
    "student": (
        lambda: mobilenet_v1(10, 1.0, 1, (16, 32, 64, 80, 80, 80), (2, 1, 2, 1, 1, 1)),
        lambda: _C.models.mobilenet_v1(10, 1.0, 1, [16, 32, 64, 80, 80, 80], [2, 1, 2, 1, 1, 1]),
    ),
    "narrow": (
        lambda: mobilenet_v1(7, 0.3, 1, (16, 32, 64), (2, 1, 2)),
        lambda: _C.models.mobilenet_v1(7, 0.3, 1, [16, 32, 64], [2, 1, 2]),
    ),
    "inverted_residuals": (
        lambda: mobilenet_v2(10, 0.25, 1, input_size=28, last_channels=64),
        lambda: _C.models.mobilenet_v2(10, 0.25, 1, 28, 64),
    ),
    "resnet": (
        lambda: resnet(10, 8, in_channels=1),
        lambda: _C.models.resnet(10, 8, 1, [16, 32, 64], None, 3, 1, False),
    ),
    "teacher": (
        lambda: resnet(
            10,
            8,
            in_channels=1,
            channels=(32, 48),
            stem_channels=16,
            stem_kernel=5,
            stem_stride=2,
            downsample="pool",
        ),
        lambda: _C.models.resnet(10, 8, 1, [32, 48], 16, 5, 2, True),
    ),
}
pairs = pytest.mark.parametrize(("in_python", "in_cpp"), PAIRS.values(), ids=PAIRS.keys())
Make = Callable[[], nn.Module]
MakeCpp = Callable[[], "_C.models.Network"]


def images(seed: int) -> Tensor:
    return torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def made(make: Callable[[], object]) -> object:
    torch.manual_seed(0)
    return make()


def copy_state(model: nn.Module, network: "_C.models.Network", path: Path) -> None:
    """From Python to C++ through a file."""
    save_tensors(path, model.state_dict())
    _C.models.load_weights(network.state(), str(path))


@pairs
def test_one_seed_gives_the_same_weights_under_the_same_keys(in_python: Make, in_cpp: MakeCpp) -> None:
    expected = made(in_python).state_dict()
    actual = dict(made(in_cpp).state())
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


@pairs
def test_float_networks_train_alike(in_python: Make, in_cpp: MakeCpp) -> None:
    model, network = made(in_python), made(in_cpp)
    torch.testing.assert_close(network.forward(images(0)), model(images(0)))
    compare_gradients(model, network, images(1))
    model.eval()
    network.train(False)
    torch.testing.assert_close(network.forward(images(2)), model(images(2)))


@pairs
def test_prepared_networks_train_alike(in_python: Make, in_cpp: MakeCpp, tmp_path: Path) -> None:
    model = quant.prepare(made(in_python).train(), images(0))
    network = made(in_cpp)
    network.prepare()
    assert dict(network.state()).keys() == model.state_dict().keys()
    for seed in range(3):
        model(images(seed))
        network.forward(images(seed))
    copy_state(model, network, tmp_path / "weights")
    compare_gradients(model, network, images(3))
    copy_state(model, network, tmp_path / "weights")
    model.eval()
    network.train(False)
    assert torch.equal(network.forward(images(4)), model(images(4)))
    compare_gradients(model, network, images(5))


@pairs
def test_prepared_weights_of_cpp_load_into_python(in_python: Make, in_cpp: MakeCpp, tmp_path: Path) -> None:
    network = made(in_cpp)
    network.prepare()
    network.forward(images(0))
    save_tensors(tmp_path / "weights", dict(network.state()))
    model = quant.prepare(made(in_python).eval(), images(0))
    load_weights(model, tmp_path / "weights")
    network.train(False)
    assert torch.equal(model(images(1)), network.forward(images(1)))


def compare_gradients(model: nn.Module, network: "_C.models.Network", x: Tensor) -> None:
    """Both run the same operations, but in one process each its own thread partition of sums is not promised."""
    parameters = dict(model.named_parameters())
    state = dict(network.state())
    for tensor in [*parameters.values(), *(state[name] for name in parameters)]:
        tensor.grad = None
    model(x).square().sum().backward()
    network.forward(x).square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(state[name].grad, parameter.grad, msg=lambda text, name=name: f"{name}: {text}")
