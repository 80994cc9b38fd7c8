# SPDX-License-Identifier: BSD-3-Clause
"""Prepares each network of a public collection, trains two steps, converts, and prints how far the integers are.

With `--files` its files are run too, and the largest difference from the integers is printed for each runtime;
images are small then, where the network takes any size.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import files
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


def in_small(model: nn.Module) -> Tensor:
    """Two images of at most 64 x 64, which the network then takes: its last pool becomes one of any size."""
    size = min(64, *getattr(model, "in_size", (64, 64)))
    for module in model.modules():
        if isinstance(getattr(module, "final_pool", None), nn.AvgPool2d):
            module.final_pool = nn.AdaptiveAvgPool2d(1)
    return torch.randn(2, 3, size, size)


def trained(model: nn.Module, images: Tensor, config: dict[str, object] | None = None) -> nn.Module:
    """The model after two steps on the grids."""
    prepared = ts.quant.prepare(model.train(), images[:1], config)
    optimizer = torch.optim.SGD(prepared.parameters(), 1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        prepared(images).square().mean().backward()
        optimizer.step()
    return prepared.eval()


def steps_apart(prepared: nn.Module, converted: nn.Module, images: Tensor) -> tuple[float, int]:
    """The difference of integers and eval, and the nodes that ran in float."""
    with torch.no_grad():
        expected = prepared(images)
    nodes = converted.integer_graph.nodes
    step = expected.abs().max().item() / 127 if nodes[-1].gives_floats else nodes[-1].scale
    return (converted(images) - expected).abs().max().item() / step, sum(node.gives_floats for node in nodes)


def file_differences(prepared: nn.Module, converted: nn.Module, name: str, images: Tensor) -> dict[str, files.Result]:
    """By runtime; that in OpenVINO is of weights with 7 bits, as its page asks for on processors without VNNI."""
    with tempfile.TemporaryDirectory() as folder:
        others = [runtime for runtime in files.RUNTIMES if runtime != "openvino"]
        results = files.differences(prepared, converted, images, Path(folder), others)
        torch.manual_seed(0)
        model, _ = network(name)
        seven = trained(model, in_small(model), {"weight": {"bits": 7}})
        again = files.differences(seven, ts.quant.convert(seven), images, Path(folder), ["openvino"])
    return results | again


def main() -> int:
    """Prints a line for each network and then `N of M`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks of pytorchcv; all of the list, if none is given")
    parser.add_argument("--files", action="store_true", help="save, load and run the files of each network as well")
    options = parser.parse_args()
    names = options.names or [*SMALL, *(() if options.files else LARGE)]
    good = 0
    found: dict[str, list[float]] = {runtime: [] for runtime in files.RUNTIMES}
    for name in names:
        start = time.perf_counter()
        torch.manual_seed(0)
        try:
            model, images = network(name)
            images = in_small(model) if options.files else images
            prepared = trained(model, images)
            converted = ts.quant.convert(prepared)
            steps, floats = steps_apart(prepared, converted, images)
            result = f"{steps:6.2f} steps, {floats} in float"
            good += steps <= MOST_STEPS
            if options.files:
                for runtime, away in file_differences(prepared, converted, name, images).items():
                    result += f"; {runtime} {away if isinstance(away, str) else format(away, '.2f')}"
                    found[runtime] += [away] if isinstance(away, float) else []
        except (ValueError, TypeError, RuntimeError) as error:
            result = str(error).splitlines()[0][:200]
        print(f"{name:32} {time.perf_counter() - start:6.1f} s  {result}", flush=True)
    print(f"{good} of {len(names)} networks within {MOST_STEPS} steps")
    for runtime, away in found.items():
        if away:
            within = sum(steps <= MOST_STEPS for steps in away)
            print(f"{runtime}: {within} of {len(names)} within {MOST_STEPS} steps, at most {max(away):.2f} away")
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
