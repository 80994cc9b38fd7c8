# SPDX-License-Identifier: BSD-3-Clause
"""Rounds a trained network without training: nearest, AdaRound, GPTQ, and bits by layer at the bytes of 4 each.

The float networks are those of 120_quantise_fashion_mnist.py (trained here if they are not there). Activations have 8
bits in every row, calibrated on the float network with some of the training images; test images are used for the table
alone. "Norms" in a row: the statistics of the batch norms were estimated anew on the rounded network.

    python examples/130_quantise_after_training.py            # 3 seeds; `make results` runs it after the other
    python examples/130_quantise_after_training.py --quick --seeds 0

What it ends with, before the bits of each layer:

                                 mean   spread  below float
    float                     90.61 %     0.07            -
    W8 nearest                90.71 %     0.08        -0.10
    W4 nearest                87.57 %     1.18         3.04
    W4 nearest + norms        89.64 %     0.20         0.97
    W4 AdaRound               90.30 %     0.15         0.31
    W4 GPTQ                   90.25 %     0.05         0.36
    W4 GPTQ + norms           90.30 %     0.05         0.31
    mixed nearest             89.86 %     0.11         0.75
    mixed GPTQ                90.61 %     0.09        -0.00
    mixed AdaRound            90.50 %     0.07         0.11
    W4 nearest + norms recovers 68 % of what W4 nearest loses.
    W4 AdaRound recovers 90 % of what W4 nearest loses.
    W4 GPTQ recovers 88 % of what W4 nearest loses.
    W4 GPTQ + norms recovers 90 % of what W4 nearest loses.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin collapse on a busy machine

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import torchslim as ts
from fashion_mnist import data, float_network, seeds
from fashion_mnist.float_network import Size
from fashion_mnist.results import EXAMPLE
from fashion_mnist.train import accuracy, predict

WIDTHS = (2, 3, 4, 5, 6, 8)  # that the search may give a layer


@dataclass(frozen=True)
class Calibration:
    """Some of the training images, as they are: not shifted."""

    batches: list[Tensor]
    images: data.Images

    @staticmethod
    def of(train: data.Images, count: int, seed: int) -> "Calibration":
        """Draws `count` images."""
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]
        images = data.Images(train.pixels[index], train.labels[index])
        return Calibration([images.inputs(i, i + 256) for i in range(0, len(images), 256)], images)


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases and returns the exit code: 0, or 1 with what is wrong."""
    return seeds.main(__doc__, arguments, run)


def run(size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """Rounds each seed's float network in each way; prints the tables, writes and returns the results."""
    found = seeds.of_each(of_seed, size, options)
    accuracies = seeds.by_case([each["accuracy"] for each in found])
    results = {
        "accuracy": accuracies,
        "recovered": recovered(accuracies),
        "plans": [each["plan"] for each in found],
    }
    print(f"Divergence with one layer of few bits, seed {options.seeds[0]}:\n{found[0]['sensitivity']}")
    print(seeds.table(accuracies))
    for line in notes(size, results):
        print(line)
    seeds.write(options.out / "after_training.json", size, options, results)
    return results


def of_seed(size: Size, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """For each case the accuracy; the table of sensitivity and the bits by layer."""
    say = seeds.say_of(seed)
    train, test = float_network.images_of(size, options.data)
    model = float_network.trained_float(size, seed, train, options.out, say)
    calibration = Calibration.of(train, size.calibration_images, seed)
    found = sensitivity(model, calibration)
    plan = ts.quant.search(found, bytes=bytes_of(found, 4))
    accuracies = {}
    for case, network in cases(model, calibration, plan, size, seed):
        accuracies[case] = accuracy(predict(network, test), test)
        say(f"{case} {accuracies[case]:.2f} %")
    if seed == options.seeds[0]:
        found.plot(options.out / "sensitivity.png")
        plan.plot(options.out / "mixed_precision.png")
    bits = {"bits": plan.bits, "bytes": plan.bytes, "budget": bytes_of(found, 4)}
    return {"accuracy": accuracies, "sensitivity": str(found), "plan": bits}


def cases(
    model: nn.Module, calibration: Calibration, plan: ts.quant.SearchResult, size: Size, seed: int
) -> Iterator[tuple[str, nn.Module]]:
    """Yields the network in float and rounded in each way; "norms": the batch norms' statistics anew."""
    four = {"weight": {"bits": 4}}
    yield "float", model
    yield "W8 nearest", calibrated(model, {}, calibration)
    network = calibrated(model, four, calibration)
    yield "W4 nearest", network
    ts.quant.reestimate_batch_norm(network, calibration.batches)
    yield "W4 nearest + norms", network
    network = calibrated(model, four, calibration)
    ts.quant.apply_adaround(network, calibration.batches, iterations=size.adaround_iterations, seed=seed)
    yield "W4 AdaRound", network
    network = calibrated(model, four, calibration)
    ts.quant.apply_gptq(network, calibration.batches, act_order=True)
    yield "W4 GPTQ", network
    ts.quant.reestimate_batch_norm(network, calibration.batches)
    yield "W4 GPTQ + norms", network
    network = calibrated(model, plan.config, calibration)
    yield "mixed nearest", network
    ts.quant.apply_gptq(network, calibration.batches, act_order=True)
    yield "mixed GPTQ", network
    network = calibrated(model, plan.config, calibration)
    ts.quant.apply_adaround(network, calibration.batches, iterations=size.adaround_iterations, seed=seed)
    yield "mixed AdaRound", network


def calibrated(model: nn.Module, config: dict[str, Any], calibration: Calibration) -> ts.quant.PreparedModel:
    """`model` with its quantisers, their ranges those of the float network, so that all cases have the same."""
    network = float_network.prepared(model, config)
    ts.quant.disable_fake_quant(network)
    ts.quant.calibrate(network, calibration.batches)
    ts.quant.enable_fake_quant(network)
    return network.eval()


def sensitivity(model: nn.Module, calibration: Calibration) -> ts.quant.Sensitivity:
    """How far the answers on the calibration images move with one layer at a time rounded; no label is needed."""
    in_float = predict(model, calibration.images).log_softmax(1)

    def divergence(network: nn.Module) -> float:
        answers = predict(network, calibration.images).log_softmax(1)
        return nn.functional.kl_div(answers, in_float, reduction="batchmean", log_target=True).item()

    return ts.quant.sensitivity(model, divergence, WIDTHS, higher_is_better=False, example_inputs=EXAMPLE)


def bytes_of(found: ts.quant.Sensitivity, bits: int) -> int:
    """Bytes of the weights with the same bits in each layer, counted as `search` counts them."""
    return sum(-(-row.weights * bits // 8) + 4 * row.channels for row in found.rows)


def recovered(accuracies: seeds.Rows) -> dict[str, float]:
    """Percent of what nearest rounding loses on average that the others do not lose."""
    nearest = seeds.mean(accuracies["W4 nearest"])
    lost = seeds.mean(accuracies["float"]) - nearest
    others = [case for case in accuracies if case.startswith("W4 ") and case != "W4 nearest"]
    won = {case: seeds.mean(accuracies[case]) - nearest for case in others}
    return {case: 100 * points / lost if lost else 100.0 for case, points in won.items()}


def notes(size: Size, results: dict[str, Any]) -> list[str]:
    """What must be said wherever the numbers are."""
    shares = results["recovered"].items()
    found = [f"{case} recovers {share:.0f} % of what W4 nearest loses." for case, share in shares]
    for plan in results["plans"]:
        bits = ", ".join(f"{layer} {width}" for layer, width in plan["bits"].items())
        found.append(f"Mixed: {plan['bytes']:,} of {plan['budget']:,} bytes; {bits}.")
    if size.name == "quick":
        found.append("QUICK: fewer images, a smaller network. These are not the numbers of the full run.")
    return found


if __name__ == "__main__":
    sys.exit(main())
