# SPDX-License-Identifier: BSD-3-Clause
"""Writes the files of every network, with images and what other runtimes must answer, into a folder.

`run_files.py` runs them there. Three batches: on the input's grid, half way between its codes, and anywhere.
"""

import argparse
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from networks import Network, networks
from torch import Tensor, nn

import torchslim as ts

RULES = ("torch-2.13", "round-then-add")
BATCH = 2


def trained(model: nn.Module, network: Network) -> nn.Module:
    """The model prepared, on grids that have seen data and weights that have moved."""
    shape = network.shape
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.5  # a few steps are all that its statistics get
    prepared = ts.quant.prepare(model.train(), torch.randn(BATCH, *shape), network.config)
    optimizer = torch.optim.SGD(prepared.parameters(), 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        prepared(torch.randn(8, *shape)).square().mean().backward()
        optimizer.step()
    return prepared.eval()


def batches(graph: ts.deploy.IntegerGraph, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Images by name; where the input has no grid, only images anywhere."""
    anywhere = 2 * torch.randn(BATCH, *shape)  # beyond the ends of the grid, too
    entry = graph.nodes[0]
    if entry.gives_floats:
        return {"anywhere": anywhere}
    codes = torch.randint(-128, 128, (BATCH, *shape)).float()
    steps = codes - entry.zero_point
    return {"on grid": entry.scale * steps, "half way": entry.scale * (steps + 0.5), "anywhere": anywhere}


def values(node: ts.deploy.IntegerNode, result: Tensor) -> Tensor:
    """What the codes of a node stand for."""
    return result if node.gives_floats else node.scale * (result.float() - node.zero_point)


def described(graph: ts.deploy.IntegerGraph, shape: tuple[int, ...]) -> dict[str, Any]:
    """Images and answers of an int8 file."""
    images = batches(graph, shape)
    runs = {
        rule: {name: ts.deploy.run_integer_nodes(graph, x, input_rule=rule) for name, x in images.items()}
        for rule in RULES
    }
    differ = {name: int((runs[RULES[0]][name][0] != runs[RULES[1]][name][0]).sum()) for name in images}
    last = graph.nodes[-1]
    return {
        "images": images,
        "answers": {rule: {name: values(last, nodes[-1]) for name, nodes in runs[rule].items()} for rule in RULES},
        "codes between rules": differ,
        "step": None if last.gives_floats else last.scale,
        "float nodes": sum(node.gives_floats for node in graph.nodes),
    }


def write(name: str, network: Network, folder: Path) -> dict[str, Any]:
    """Writes the files of one network and returns what `run_files.py` must know."""
    torch.manual_seed(0)
    stem = re.sub(r"\W+", "_", name)
    zeros = torch.zeros(1, *network.shape)
    model = network.make().eval()
    images = torch.randn(BATCH, *network.shape)
    with torch.no_grad():
        entry: dict[str, Any] = {"float": {"file": f"{stem}.float.ptl", "images": images, "answer": model(images)}}
    files = [ts.deploy.save(model, zeros, folder / entry["float"]["file"]).path]
    integers = ts.quant.convert(trained(model, network))
    entry["int8"] = {"file": f"{stem}.int8.ptl", **described(integers.integer_graph, network.shape)}
    files.append(ts.deploy.save(integers, zeros, folder / entry["int8"]["file"]).path)
    for file, described_file in zip(files, entry.values(), strict=True):
        described_file["problems"] = problems(file)
        if any(described_file["problems"].values()):
            raise ValueError(f"{file} does not load everywhere: {described_file['problems']}")
    return entry


def problems(file: Path) -> dict[str, list[str]]:
    """The operators that each runtime lacks for a file."""
    reports = {runtime: ts.deploy.check(file, runtime) for runtime in ts.deploy.known_runtimes()}
    return {runtime: [problem.op for problem in report.problems] for runtime, report in reports.items()}


class Attention(nn.Module):
    """An operator that came with torch 2.0."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def write_later(folder: Path) -> dict[str, Any]:
    """Writes a file as torch does, with an operator that an older runtime refuses."""
    images = torch.randn(BATCH, 12, 32)
    file = folder / "later.ptl"
    torch.jit.trace(Attention(), images)._save_for_lite_interpreter(str(file))
    entry = {"file": file.name, "images": images, "answer": Attention()(images), "problems": problems(file)}
    if {runtime for runtime, lacks in entry["problems"].items() if lacks} != {"1.13.1"}:
        raise ValueError(f"{file}: torch 1.13.1 alone should lack its operator: {entry['problems']}")
    return {"float": entry}


def main() -> int:
    """Writes all of them and a list, `files.pt`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="networks; all of them, if none is given")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    known = networks()
    entries = {}
    start = time.perf_counter()
    for name in options.names or known:
        entries[name] = write(name, known[name], options.folder)
    entries["an operator that came later"] = write_later(options.folder)
    torch.save(entries, options.folder / "files.pt")
    print(f"{len(entries)} networks written in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
