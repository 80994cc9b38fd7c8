# SPDX-License-Identifier: BSD-3-Clause
"""Mobile networks, a small teacher, and weight files: the same `state_dict` keys in Python and C++."""

from torchslim.models.mobilenet_v1 import MobileNetV1, mobilenet_v1
from torchslim.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from torchslim.models.resnet import ResNet, resnet
from torchslim.models.weights import load_tensors, load_weights, save_tensors, save_weights

__all__ = [
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "load_tensors",
    "load_weights",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet",
    "save_tensors",
    "save_weights",
]
