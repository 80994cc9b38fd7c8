# SPDX-License-Identifier: BSD-3-Clause
"""Trains with few bits: W8A8, W4A8, W4A4 and W2A8, and uniform 4 bits against additive powers of two.

For each seed a MobileNet learns Fashion-MNIST in float. From there each case goes on for an epoch on the same batches,
with the same loss and learning rate; the float network too, so that no case is better for having been trained longer.

    python examples/120_quantise_fashion_mnist.py            # 3 seeds; `make results` runs it and the next
    python examples/120_quantise_fashion_mnist.py --quick --seeds 0

What it ends with:

                                 mean   spread  below float
    float                     90.71 %     0.30            -
    W8A8                      90.65 %     0.25         0.06
    W4A8                      90.13 %     0.46         0.58
    W4A8 APoT                 90.25 %     0.30         0.46
    W4A4 LSQ                  89.59 %     0.25         1.12
    W2A8 LSQ                  82.30 %     1.76         8.41
    8 epochs in float, then 1 of each case, float too.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin collapse on a busy machine

import argparse
import copy
import sys
from typing import Any

from torch import nn

from fashion_mnist import data, float_network, seeds
from fashion_mnist.float_network import Size
from fashion_mnist.train import accuracy, predict
from torchslim.quant import PreparedModel

CASES = ("float", "W8A8", "W4A8", "W4A8 APoT", "W4A4 LSQ", "W2A8 LSQ")


def config_of(case: str, size: Size) -> dict[str, Any] | None:
    """The `config` of `prepare` for a case; None: float."""
    last = f"features.{len(size.network['channels']) - 1}.pointwise.conv"
    eight = {"activation": {"bits": 8}}
    configs: dict[str, dict[str, Any] | None] = {
        "float": None,
        "W8A8": {},
        "W4A8": {"weight": {"bits": 4}},
        "W4A8 APoT": {"weight": {"bits": 4, "quantizer": "apot"}},
        # Where the first and the last layer read and what the last one gives have 8 bits: the average pool before the
        # last would round means of many pixels to 16 levels.
        "W4A4 LSQ": {
            "weight": {"bits": 4, "quantizer": "lsq"},
            "activation": {"bits": 4, "quantizer": "lsq"},
            "kinds": {"input": eight},
            "names": {last: eight, "classifier": eight},
        },
        "W2A8 LSQ": {"weight": {"bits": 2, "quantizer": "lsq"}},
    }
    return configs[case]


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases and returns the exit code: 0, or 1 with what is wrong."""
    return seeds.main(__doc__, arguments, run)


def run(size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """Trains each case from each seed's float network; prints the table, writes and returns the results."""
    found = seeds.of_each(of_seed, size, options)
    results = {name: seeds.by_case([each[name] for each in found]) for name in ("accuracy", "integers_differ_by")}
    print(seeds.table(results["accuracy"]))
    for line in notes(size, results["integers_differ_by"]):
        print(line)
    seeds.write(options.out / "training.json", size, options, results)
    return results


def of_seed(size: Size, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """For each case the accuracy, and how far `convert` is from `eval`."""
    say = seeds.say_of(seed)
    train, test = float_network.images_of(size, options.data)
    model = float_network.trained_float(size, seed, train, options.out, say)
    accuracies, differences = {}, {}
    for case in CASES:
        network = tuned(model, config_of(case, size), size, seed, train)
        accuracies[case] = accuracy(predict(network, test), test)
        if isinstance(network, PreparedModel):
            differences[case] = float_network.integers_differ_by(network, test.inputs(0, 500))
        say(f"{case} {accuracies[case]:.2f} %")
    return {"accuracy": accuracies, "integers_differ_by": differences}


def tuned(model: nn.Module, config: dict[str, Any] | None, size: Size, seed: int, train: data.Images) -> nn.Module:
    """A copy of the float network with the quantisers of `config`, trained on."""
    network = copy.deepcopy(model) if config is None else float_network.prepared(model, config)
    float_network.tune(network, size, seed, train)
    return network


def notes(size: Size, differences: seeds.Rows) -> list[str]:
    """What must be said wherever the numbers are."""
    equal = [case for case, values in differences.items() if not any(values)]
    found = [
        f"{size.float_epochs} epochs in float, then {size.tune_epochs} of each case, float too.",
        f"convert() gives what eval() gives, bit for bit, on 500 images: {', '.join(equal)}.",
    ]
    if size.name == "quick":
        found.append("QUICK: fewer images, a smaller network. These are not the numbers of the full run.")
    return found


if __name__ == "__main__":
    sys.exit(main())
