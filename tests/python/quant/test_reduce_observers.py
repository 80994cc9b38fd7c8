# SPDX-License-Identifier: BSD-3-Clause
"""Two processes, each with its own data, joined by gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchslim as ts

#: What each rank runs: argv holds its rank, the folder for all files, and the name of the case.
PROGRAM = """
import sys
import torch
from torch import distributed as dist, nn
import torchslim as ts
from quant.test_reduce_observers import CASES, batches

rank, folder, case = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=2)
model = CASES[case](rank)
for x in batches(rank):
    if case != "one rank saw nothing" or rank == 0:
        model(x)
if case == "a broken histogram" and rank == 1:
    model.histogram.fill_(-1)
try:
    ts.quant.reduce_observers(model)
    result = model.state_dict()
except ValueError as error:
    result = str(error)
torch.save(result, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def batches(rank: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(8, 6, generator=generator) * (1 + 3 * rank) for _ in range(3)]


def every_kind(_rank: int) -> nn.Module:
    quant = ts.quant
    return nn.Sequential(
        quant.MinMaxObserver(),
        quant.MinMaxObserver(axis=1),
        quant.MovingAverageObserver(axis=1, group_size=2),
        quant.HistogramObserver(),
        quant.EntropyObserver(64, axis=1),
    )


CASES = {
    "every kind": every_kind,
    "one rank saw nothing": every_kind,
    "quantisers": lambda _: nn.Sequential(ts.quant.FakeQuantize(), ts.quant.FakeQuantize("min_max", axis=1)),
    "other bins": lambda rank: ts.quant.HistogramObserver(32 + rank),
    "other shapes": lambda rank: ts.quant.MinMaxObserver(axis=rank),
    "a broken histogram": lambda _: ts.quant.HistogramObserver(32),
}


def run_ranks(folder: Path, case: str) -> list[object]:
    tests = Path(__file__).parents[1]
    paths = [str(Path(ts.__file__).parents[1]), str(tests), str(tests.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(folder), case],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", ["every kind", "one rank saw nothing", "quantisers"])
def test_every_rank_has_the_same_bits(case: str, tmp_path: Path) -> None:
    first, second = run_ranks(tmp_path, case)
    assert isinstance(first, dict) and isinstance(second, dict)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    if case == "quantisers":
        grid = ts.quant.choose_qparams(first["0.min_val"], first["0.max_val"], -128, 127, False)
        assert torch.equal(first["0.scale"], grid[0]) and torch.equal(first["0.zero_point"], grid[1])
        assert first["1.scale"].shape == (6,)
        return
    alone = every_kind(0)
    for x in [*batches(0), *(batches(1) if case == "every kind" else [])]:
        alone(x)
    for name, expected in alone.state_dict().items():
        if not name.startswith("2."):  # an average depends on the order
            assert torch.equal(first[name], expected), name


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("other bins", "the ranks' states differ in bins: 32 and 33"),
        ("other shapes", "the ranks' states differ in shape: 6 and 8"),
        ("a broken histogram", "does not fit"),
    ],
)
def test_all_ranks_refuse_alike(case: str, message: str, tmp_path: Path) -> None:
    for result in run_ranks(tmp_path, case):
        assert message in str(result)


def test_without_a_process_group_it_says_so() -> None:
    with pytest.raises(ValueError, match="no process group; call"):
        ts.quant.reduce_observers(nn.Identity())
