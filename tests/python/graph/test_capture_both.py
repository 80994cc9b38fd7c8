# SPDX-License-Identifier: BSD-3-Clause
"""The same net as in tests/cpp/graph/capture_both_test.cpp, with the same graph."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchslim as ts

EXPECTED = Path(__file__).parents[2] / "reference" / "small_net_graph.inc"


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2, 1, groups=3, bias=False)
        self.norm = nn.BatchNorm2d(6, eps=0.001)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.conv(x)))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = F.relu(x + F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.linear(x.view(x.size(0), -1))


def test_python_and_cpp_give_the_same_graph_for_the_same_net() -> None:
    graph = ts.graph.capture(SmallNet(), torch.randn(2, 3, 9, 9))
    text = EXPECTED.read_text()
    assert graph.to_json() == text[text.index("(") + 1 : text.rindex(")")]
