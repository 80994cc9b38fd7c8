# SPDX-License-Identifier: BSD-3-Clause
"""Puts what the examples of quantisation found into docs/results/quantisation.md: `make results` runs them and this.

Between the markers of a name (`page_parts`), the page holds what the function of that name makes of the results.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import page_parts

PAGE = Path(__file__).parent / "results" / "quantisation.md"
PICTURES = ("mixed_precision.png", "sensitivity.png")

Results = dict[str, Any]


def circumstances(training: Results, after: Results) -> str:
    """Where, with what and how long."""
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    return (
        f"{training['machine']}; {versions}. Seeds {_listed(training['seeds'])}. "
        f"Each network learned {training['float_epochs']} epochs in float; training with few bits went on for "
        f"{training['tune_epochs']} more, and the float network beside it too. After training: "
        f"{after['calibration_images']:,} training images to calibrate with, {after['adaround_iterations']:,} steps of "
        "AdaRound a layer."
    )


def training(training: Results, after: Results) -> str:
    """The table of quantisation-aware training, and whether integers are equal."""
    equal = [case for case, values in training["integers_differ_by"].items() if not any(values)]
    others = [case for case in training["integers_differ_by"] if case not in equal]
    text = f"`convert` gives what `eval()` gives, bit for bit, on 500 test images of each seed: {_listed(equal)}."
    return f"{_table(training['accuracy'])}\n\n{text}" + (f" It does not for {_listed(others)}." if others else "")


def after_training(training: Results, after: Results) -> str:
    """The table of rounding without training, and how much of the loss is recovered."""
    shares = _listed([f"{case} recovers {share:.0f} %" for case, share in after["recovered"].items()])
    return f"{_table(after['accuracy'])}\n\nOf what W4 nearest loses on average, {shares}."


def mixed(training: Results, after: Results) -> str:
    """Bits of each layer, for each seed."""
    lines = [
        "| layer |" + "".join(f" seed {seed} |" for seed in after["seeds"]),
        "|---|" + "---|" * len(after["seeds"]),
    ]
    for layer in after["plans"][0]["bits"]:
        lines.append(f"| `{layer}` |" + "".join(f" {plan['bits'][layer]} |" for plan in after["plans"]))
    sizes = "".join(f" {plan['bytes']:,} of {plan['budget']:,} |" for plan in after["plans"])
    return "\n".join([*lines, f"| bytes |{sizes}"])


def targets(training: Results, after: Results) -> str:
    """What was wanted, what was found, and whether that is enough."""
    trained, rounded = _means(training["accuracy"]), _means(after["accuracy"])
    lines = ["| wanted | found | |", "|---|---|---|"]

    def add(wanted: str, found: str, met: bool) -> None:
        lines.append(f"| {wanted} | {found} | {'met' if met else '**falls short**'} |")

    for case, most in (("W8A8", 0.3), ("W4A8", 1.0), ("W4A4 LSQ", 1.0)):
        below = trained["float"] - trained[case]
        add(f"{case}: at most {most} points below float", f"{below:.2f}", below <= most)
    for case in ("W4 AdaRound", "W4 GPTQ", "W4 GPTQ + norms"):
        share = after["recovered"][case]
        add(f"{case} recovers 80 % of what W4 nearest loses", f"{share:.0f} %", share >= 80)
    for way in ("nearest", "GPTQ", "AdaRound"):
        more = rounded[f"mixed {way}"] - rounded[f"W4 {way}"]
        add(f"mixed {way} beats W4 {way} at its bytes", f"by {more:.2f} points", more > 0)
    return "\n".join(lines)


def _means(accuracy: dict[str, list[float]]) -> dict[str, float]:
    return {case: statistics.fmean(values) for case, values in accuracy.items()}


def _table(accuracy: dict[str, list[float]]) -> str:
    lines = ["| | mean | spread | below float |", "|---|---|---|---|"]
    reference = statistics.fmean(accuracy["float"])
    for case, values in accuracy.items():
        mean = statistics.fmean(values)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        below = "" if case == "float" else f"{reference - mean:.2f}"
        lines.append(f"| {case} | {mean:.2f} % | {spread:.2f} | {below} |")
    return "\n".join(lines)


def _listed(words: list[Any]) -> str:
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def fill(text: str, found: tuple[Results, Results]) -> str:
    """Returns the page's `text` with everything between markers made anew."""
    functions = (circumstances, training, after_training, mixed, targets)
    parts = {function.__name__: function for function in functions}
    return page_parts.fill(text, lambda name: parts[name](*found))


def main() -> None:
    """Reads the results, rewrites the page, copies the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("build/quantise"), help="where they are (%(default)s)")
    folder = parser.parse_args().results
    found = tuple(json.loads((folder / f"{name}.json").read_text()) for name in ("training", "after_training"))
    if any(results["size"] != "full" for results in found):
        raise SystemExit(f"{folder}: of the quick form; the page holds the full one: run `make results`")
    PAGE.write_text(fill(PAGE.read_text(), found))
    for picture in PICTURES:
        shutil.copyfile(folder / picture, PAGE.parent / picture)


if __name__ == "__main__":
    main()
