# SPDX-License-Identifier: BSD-3-Clause
"""Mobile networks and a small teacher, with the same `state_dict` keys in Python and C++."""

from torchslim.models.mobilenet_v1 import MobileNetV1, mobilenet_v1
from torchslim.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from torchslim.models.resnet import ResNet, resnet

__all__ = ["MobileNetV1", "MobileNetV2", "ResNet", "mobilenet_v1", "mobilenet_v2", "resnet"]
