# SPDX-License-Identifier: BSD-3-Clause
"""`torchslim inspect`: what a file is and what is in it."""

import argparse
import os
from typing import Any

from torchslim import deploy
from torchslim.cli.commands import Commands
from torchslim.cli.file_contents import Contents, Part, read_contents
from torchslim.deploy.report_table import text_table


def add_parser(commands: Commands) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "inspect",
        help="what is in a file: kind, input, operations, bytes",
        description="Says what a .ptl, .onnx or .pte file is, which operations it runs and where its bytes are.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    model = deploy.load(options.file)
    print("\n".join(_facts(options.file, model)))
    contents = read_contents(options.file, model.manifest)
    print(_bound(model.manifest, contents), end="")
    if contents.operations:
        rows = [(str(count), name) for name, count in contents.operations.most_common()]
        print("\noperations\n" + text_table(rows, left=(1,)), end="")
    if contents.parts:
        rest = os.path.getsize(options.file) - sum(part.bytes for part in contents.parts)
        parts = [*sorted(contents.parts, key=lambda part: -part.bytes), Part(rest, "(everything else)")]
        print("\nbytes\n" + text_table([_row(part) for part in parts if part.bytes], left=(1, 2, 3)), end="")
    return 0


def _row(part: Part) -> tuple[str, ...]:
    return f"{part.bytes:,}", part.name, part.op, " x ".join(map(str, part.weight))


def _bound(manifest: dict[str, Any], contents: Contents) -> str:
    """The size that an int8 `.ptl` file without large parts in float stays within, as a sum; "" for other files."""
    if manifest.get("kind") != "int8" or not contents.records or "layers" not in manifest:
        return ""
    codes = manifest["weights"]["codes"]
    channels = sum(part.weight[0] for part in contents.parts if part.weight)
    total = codes + 24 * channels + 400 * contents.records + 25_000
    return (
        f"bound: {codes:,} codes + 24 x {channels:,} output channels + 400 x {contents.records} records + 25,000"
        f" = {total:,} bytes, and 4 for each number of what is in float\n"
    )


def _facts(path: str, model: deploy.LoadedModel) -> list[str]:
    manifest: dict[str, Any] = model.manifest
    facts = [f"{path}: {manifest.get('kind', 'no manifest')}, {os.path.getsize(path):,} bytes, runs in {model.engine}"]
    if "torchslim" in manifest:
        facts.append(f"written by torchslim {manifest['torchslim']} with torch {manifest['torch']}")
    if model.input_shape:
        sizes = " x ".join("N" if size is None else str(size) for size in model.input_shape)
        facts.append(f"input: {sizes}, {_normalisation(manifest)}")
    for name in ("input", "output"):
        grid = manifest.get(f"{name}_grid_uint8")
        if isinstance(grid, dict):
            facts.append(f"{name} grid: scale {grid['scale']:.6g}, zero point {grid['zero_point']} of uint8")
    if "weights" in manifest:
        weights = manifest["weights"]
        facts.append(f"weights: {weights['codes']:,} codes, {weights['nonzero']:,} not zero; {weights['grid']}")
    if "labels" in manifest:
        facts.append(f"labels: {', '.join(manifest['labels'])}")
    return facts


def _normalisation(manifest: dict[str, Any]) -> str:
    rule = manifest.get("input", {}).get("normalisation")
    return f"(pixel - {rule['mean']}) / {rule['std']}" if rule else "as the model was trained"
