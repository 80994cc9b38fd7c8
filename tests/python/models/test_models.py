# SPDX-License-Identifier: BSD-3-Clause
"""The networks: parameter counts of the papers, shapes, keys, tracing, errors."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from torchslim.models import mobilenet_v1, mobilenet_v2, resnet


def student() -> nn.Module:
    return mobilenet_v1(10, in_channels=1, channels=(16, 32, 64, 80, 80, 80), strides=(2, 1, 2, 1, 1, 1))


def teacher() -> nn.Module:
    return resnet(
        10,
        depth=8,
        in_channels=1,
        channels=(64, 128),
        stem_channels=32,
        stem_kernel=5,
        stem_stride=2,
        downsample="pool",
    )


def small_v2() -> nn.Module:
    return mobilenet_v2(10, width=0.25, in_channels=1, input_size=28, last_channels=64)


def small_resnet() -> nn.Module:
    return resnet(10, depth=8, in_channels=1)


NETWORKS = [student, teacher, small_v2, small_resnet]


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # Howard et al. 2017, table 6: 4.2 and 0.5 million
        (lambda: mobilenet_v1(1000), 4_231_976),
        (lambda: mobilenet_v1(1000, width=0.25), 470_072),
        # torchvision's mobilenet_v2
        (lambda: mobilenet_v2(1000), 3_504_872),
        # He et al. 2016, table 6: 0.27 million; 1×1 shortcuts add 2,752 to it
        (lambda: resnet(10), 272_474),
        (student, 25_130),
        (teacher, 464_106),
    ],
)
def test_parameter_counts(model: Callable[[], nn.Module], parameters: int) -> None:
    assert sum(p.numel() for p in model().parameters()) == parameters


@pytest.mark.parametrize("network", NETWORKS)
def test_traces_and_scripts_to_the_same_output(network: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().eval()
    images = torch.randn(2, 1, 28, 28)
    expected = model(images)
    assert expected.shape == (2, 10)
    assert torch.equal(torch.jit.trace(model, images)(images), expected)
    assert torch.equal(torch.fx.symbolic_trace(model)(images), expected)


def test_keys_are_those_of_the_contract_with_cpp() -> None:
    keys = set(small_v2().state_dict())
    assert {"features.0.conv.weight", "features.1.depthwise.bn.running_var"} <= keys
    assert "features.1.expand.conv.weight" not in keys  # expansion 1
    assert {"features.2.expand.conv.weight", "features.2.project.bn.bias", "classifier.bias"} <= keys
    assert "blocks.0.shortcut.conv.weight" not in small_resnet().state_dict()
    assert "blocks.1.shortcut.conv.weight" in small_resnet().state_dict()
    assert "blocks.0.conv.weight" in teacher().state_dict()
    assert "blocks.2.conv2.bn.num_batches_tracked" in teacher().state_dict()


@pytest.mark.parametrize(("size", "last_map"), [(224, 7), (96, 3), (64, 4), (32, 4), (28, 4), (7, 4), (3, 3)])
def test_mobilenet_v2_keeps_detail_of_small_images(size: int, last_map: int) -> None:
    features = mobilenet_v2(10, width=0.25, input_size=size, last_channels=16).features
    assert features(torch.zeros(1, 3, size, size)).shape[-1] == last_map


def test_weights_start_with_the_fan_out_variance() -> None:
    torch.manual_seed(0)
    model = resnet(10, depth=8, channels=(64, 128, 256))
    weight = model.get_parameter("blocks.1.conv2.conv.weight")
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert model.get_parameter("classifier.weight").std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mobilenet_v1(channels=(8, 16), strides=(1,)), "got 2 and 1"),
        (lambda: mobilenet_v1(channels=(), strides=()), "got 0 and 0"),
        (lambda: mobilenet_v1(width=0.0), "width must be > 0, got 0.0"),
        (lambda: mobilenet_v2(stages=()), "at least one row"),
        (lambda: mobilenet_v2(input_size=2), "at least 3, got 2"),
        (lambda: resnet(depth=21), "come in depths 8, 14, 20, ..., got 21"),
        (lambda: resnet(depth=20, downsample="pool"), "depths 11, 17, 23"),
        (lambda: resnet(downsample="blur"), "got 'blur'"),
        (lambda: resnet(channels=()), "at least one stage"),
    ],
)
def test_wrong_options_are_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
