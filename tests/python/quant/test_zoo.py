# SPDX-License-Identifier: BSD-3-Clause
"""Small networks of a public collection, prepared, trained, converted: the integers are those of eval, bit for bit."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "zoo"))

from networks import SMALL
from run import network, steps_apart, trained

import torchslim as ts


@pytest.mark.parametrize("name", SMALL)
def test_integers_are_those_of_eval(name: str) -> None:
    torch.manual_seed(0)
    model, images = network(name)
    prepared = trained(model, images)
    steps, _ = steps_apart(prepared, ts.quant.convert(prepared), images)
    assert steps == 0
