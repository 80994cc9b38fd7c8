# SPDX-License-Identifier: BSD-3-Clause
import torch
from torch import nn

import torchslim as ts


def test_macs_weights_and_zeros_worked_out_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    with torch.no_grad():
        model[2].weight[0].zero_()
    graph = ts.graph.capture(model, torch.randn(4, 3, 9, 9))
    assert ts.graph.count_layers(graph) == [
        ("0", "0.weight", "conv2d", 9 * 9 * 8 * 27, 216, 0),
        ("2", "2.weight", "conv2d", 4 * 4 * 8 * 9, 72, 9),
        ("5", "5.weight", "linear", 40, 40, 0),
    ]
    assert ts.graph.count_macs(graph) == 9 * 9 * 8 * 27 + 4 * 4 * 8 * 9 + 40
