# SPDX-License-Identifier: BSD-3-Clause
"""A prepared model on two processes, each with its own half of the batch, under DDP and FSDP2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference.quant_networks import Residual, example
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import FakeQuantize

STEPS = 3
LABELS = torch.arange(8) % 5

KINDS = ["ddp", "fsdp2", "fsdp2, each layer"]

#: What each rank runs: argv holds its rank and the folder for all files.
PROGRAM = """
import sys
import torch
from torch import distributed as dist
from quant.test_training_on_ranks import KINDS, run_training

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=2)
torch.save({kind: run_training(rank, kind) for kind in (*KINDS, "ddp, ranges apart")}, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def run_training(rank: int, kind: str) -> dict[str, object]:
    """Trains on every second image of each batch; returns what the tests below look at."""
    model = wrapped(prepared(), kind)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    hashes, ranges = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(batch(step)[rank::2]), LABELS[rank::2]).backward()
        optimizer.step()
        if kind != "ddp, ranges apart":
            ts.quant.reduce_observers(model)
        hashes.append(hash_of_quantizers(model))
        ranges.append({name: b.clone() for name, b in model.named_buffers() if "input_fake_quantize" in name})
    parameters = {
        name: p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for name, p in model.named_parameters()
    }
    model.eval()
    with torch.no_grad():
        output = model(batch(STEPS))
    return {"hashes": hashes, "ranges": ranges, "parameters": parameters, "output": output}


def batch(seed: int) -> Tensor:
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return images * torch.linspace(0.5, 2, 8).view(-1, 1, 1, 1)  # the ranks' ranges differ


def prepared() -> nn.Module:
    torch.manual_seed(0)
    return ts.quant.prepare(Residual().train(), example())


def wrapped(model: nn.Module, kind: str) -> nn.Module:
    if kind.startswith("ddp"):
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    if kind == "fsdp2, each layer":
        for module in list(model.modules()):
            if next(module.parameters(recurse=False), None) is not None:
                fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def hash_of_quantizers(model: nn.Module) -> int:
    """Of all bits of all buffers of all quantisers."""
    bits = [
        bytes(buffer.detach().contiguous().view(-1).view(torch.uint8).tolist())
        for module in model.modules()
        if isinstance(module, FakeQuantize)
        for buffer in module.buffers()
    ]
    assert bits
    return hash(b"".join(bits))


Results = list[dict[str, dict]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """For each rank, what `run_training` returned for each kind."""
    folder = tmp_path_factory.mktemp("ranks")
    tests = Path(__file__).parents[1]
    paths = [str(Path(ts.__file__).parents[1]), str(tests), str(tests.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
    logs = [folder / f"{rank}.log" for rank in range(2)]
    ranks = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(folder)], env=environment, stderr=log.open("w"))
        for rank, log in enumerate(logs)
    ]
    for process, log in zip(ranks, logs, strict=True):
        assert process.wait(timeout=240) == 0, log.read_text()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_ranks_have_the_same_grids_after_each_step(kind: str, results: Results) -> None:
    first, second = (rank[kind] for rank in results)
    assert first["hashes"] == second["hashes"]
    assert len(set(first["hashes"])) == STEPS  # they move
    for name, parameter in first["parameters"].items():
        assert torch.equal(parameter, second["parameters"][name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_are_those_of_one_process_with_the_whole_batch(kind: str, results: Results) -> None:
    """Bit for bit: rounding keeps order, so the widest of the ranks' averages is the average of their widest."""
    alone = prepared()
    first = results[0][kind]
    for step in range(STEPS):
        alone(batch(step))
        for name, tensor in first["ranges"][step].items():
            expected = alone.get_buffer(name.removeprefix("module."))
            assert torch.equal(tensor, expected), (step, name)


def test_sharded_parameters_train_as_copied_ones(results: Results) -> None:
    copied = results[0]["ddp"]
    for kind in KINDS[1:]:
        sharded = results[0][kind]
        for name, parameter in sharded["parameters"].items():
            torch.testing.assert_close(parameter, copied["parameters"][f"module.{name}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_eval_runs_on_ranks(kind: str, results: Results) -> None:
    """Grids and weights are equal; running statistics of batch norms are the rank's own under FSDP2."""
    first, second = (rank[kind] for rank in results)
    assert first["output"].isfinite().all()
    assert first["output"].shape == second["output"].shape == (8, 5)


def test_without_the_call_the_grids_differ(results: Results) -> None:
    first, second = (rank["ddp, ranges apart"] for rank in results)
    assert first["hashes"] != second["hashes"]
