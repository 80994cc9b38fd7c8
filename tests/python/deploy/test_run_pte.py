# SPDX-License-Identifier: BSD-3-Clause
import sys
from pathlib import Path

import pytest
import torch
from deploy_zoo import images, resnet

import torchslim as ts


def test_larger_batches_run_in_parts(tmp_path: Path) -> None:
    model, x = resnet().eval(), images(6)
    file = ts.deploy.PteModel(ts.deploy.save(model, x[:2], tmp_path / "net.pte").path)
    assert file.batch == 2
    assert file.input_shape == [2, 3, 20, 20]
    torch.testing.assert_close(file(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    # Timing another file makes the process's pool anew, under the feet of this one.
    for threads in (3, 1):
        ts.deploy.measure_latency(ts.deploy.PteModel(tmp_path / "net.pte"), x[:2], runs=2, warm_up=1, threads=threads)
        torch.testing.assert_close(file(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="runs batches of 2, which do not add up to 3 images"):
        file(images(3))
    with pytest.raises(ValueError, match=r"takes images of shape \(N, 3, 20, 20\), got \(2, 1, 20, 20\)"):
        file(torch.zeros(2, 1, 20, 20))
    with pytest.raises(TypeError, match="must be float32, got int64"):
        file(torch.zeros(2, 3, 20, 20, dtype=torch.int64))


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pte").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(ImportError, match=r"pip install 'torchslim\[export\]'"):
        ts.deploy.load(tmp_path / "net.pte")
