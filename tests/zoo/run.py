# SPDX-License-Identifier: BSD-3-Clause
"""Prepares each network of a public collection, trains two steps, converts, and prints how far the integers are."""

import argparse
import sys
import time
import warnings

import pytorchcv.model_provider as provider
import torch
from networks import LARGE, SMALL
from torch import Tensor, nn

import torchslim as ts

#: What counts as the same: the largest difference, in steps of the output's quantiser.
MOST_STEPS = 1.5


def network(name: str) -> tuple[nn.Module, Tensor]:
    """The network with random weights, and two random images of its size."""
    model: nn.Module = provider.get_model(name, pretrained=False)
    return model, torch.randn(2, 3, *getattr(model, "in_size", (224, 224)))


def steps_apart(model: nn.Module, images: Tensor) -> tuple[float, int]:
    """Trains two steps on the grids; returns the difference of integers and eval, and the nodes that ran in float."""
    prepared = ts.quant.prepare(model.train(), images[:1])
    optimizer = torch.optim.SGD(prepared.parameters(), 1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        prepared(images).square().mean().backward()
        optimizer.step()
    converted = ts.quant.convert(prepared.eval())
    with torch.no_grad():
        expected = prepared(images)
    nodes = converted.integer_graph.nodes
    step = expected.abs().max().item() / 127 if nodes[-1].gives_floats else nodes[-1].scale
    return (converted(images) - expected).abs().max().item() / step, sum(node.gives_floats for node in nodes)


def main() -> int:
    """Prints a line for each network and then `N of M`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks of pytorchcv; all of the list, if none is given")
    names = parser.parse_args().names or [*SMALL, *LARGE]
    good = 0
    for name in names:
        start = time.perf_counter()
        torch.manual_seed(0)
        try:
            steps, floats = steps_apart(*network(name))
            result = f"{steps:6.2f} steps, {floats} in float"
            good += steps <= MOST_STEPS
        except (ValueError, TypeError, RuntimeError) as error:
            result = str(error).splitlines()[0][:200]
        print(f"{name:32} {time.perf_counter() - start:6.1f} s  {result}", flush=True)
    print(f"{good} of {len(names)} networks within {MOST_STEPS} steps")
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
