# SPDX-License-Identifier: BSD-3-Clause
"""Writes the seeds that fuzzing starts from: two small files and the programs in them."""

import sys
import zipfile
from pathlib import Path

import torch
from torch import nn

import torchslim as ts


def main(folder: Path) -> None:
    """Writes an int8 and a float file, and their pickles, to `folder`."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    prepared = ts.quant.prepare(network, torch.randn(1, 1, 4, 4))
    prepared(torch.randn(8, 1, 4, 4))
    for name, model in (("int8", prepared.eval()), ("float", network.eval())):
        path = folder / f"{name}.ptl"
        ts.deploy.save(model, torch.randn(1, 1, 4, 4), path)
        with zipfile.ZipFile(path) as archive:
            for record in ("bytecode", "data"):
                (folder / f"{name}_{record}.pkl").write_bytes(archive.read(f"archive/{record}.pkl"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("corpus")))
