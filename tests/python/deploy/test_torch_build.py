# SPDX-License-Identifier: BSD-3-Clause
"""Other builds of torch: here the interpreter that runs the tests, and commands that misbehave."""

import sys
import time
from pathlib import Path

import pytest
import torch
from deploy_zoo import images, resnet, trained, vgg

import torchslim as ts


def test_a_build_answers_with_the_bits_of_the_reference(tmp_path: Path) -> None:
    model, x = trained(resnet), images(40)
    path = ts.deploy.save(model, x[:1], tmp_path / "net.ptl").path
    answer = ts.deploy.TorchBuild([sys.executable]).run(path, x)
    graph = ts.quant.convert(model).integer_graph
    assert torch.equal(answer.outputs, ts.deploy.run_integer(graph, x, input_rule=answer.input_rule).values)
    assert answer.torch == torch.__version__
    assert answer.cpu_ms_int8 > 0
    assert answer.cpu_ms_float is None


def test_the_float_file_is_timed_beside(tmp_path: Path) -> None:
    int8 = ts.deploy.save(trained(vgg), images(1), tmp_path / "int8.ptl").path
    floats = ts.deploy.save(vgg().eval(), images(1), tmp_path / "float.ptl").path
    answer = ts.deploy.TorchBuild([sys.executable]).run(int8, images(1), float_file=floats)
    assert answer.cpu_ms_float is not None and answer.cpu_ms_float > 0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('first'); raise SystemExit('it is broken')", r"ended with code 1 and gave no answer.*first.*broken"),
        ("pass", r"ended with code 0 and gave no answer; the last that it printed:\n    \(nothing\)"),
        (
            "import sys; open(sys.argv[2] + '/answer.pt', 'w').write('no tensors'); print('done')",
            r"ended with code 0 and gave no answer.*done",
        ),
        (
            "import sys, torch; torch.save({'torch': '9'}, sys.argv[2] + '/answer.pt')",
            r"ended with code 0 and gave no answer",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"ended with code -11"),
    ],
)
def test_a_command_that_fails_is_one_error_with_its_last_lines(tmp_path: Path, code: str, message: str) -> None:
    build = ts.deploy.TorchBuild([sys.executable, "-c", code])
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        build.run(tmp_path / "net.ptl", images(1))


def test_a_file_that_the_build_does_not_load_names_why(tmp_path: Path) -> None:
    (tmp_path / "net.ptl").write_bytes(b"no network")
    with pytest.raises(RuntimeError, match=r"(?s)ended with code 1 and gave no answer.*Error"):
        ts.deploy.TorchBuild([sys.executable]).run(tmp_path / "net.ptl", images(1))


def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(alive)!r}, 'w')"
    code = f"import subprocess, sys; print('waits', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r"(?s)did not end within 1 s, was killed and gave no answer.*waits"):
        ts.deploy.TorchBuild([sys.executable, "-c", code], timeout=1).run(tmp_path / "net.ptl", images(1))
    assert time.monotonic() - begin < 3
    time.sleep(max(0.0, 3.5 - (time.monotonic() - begin)))
    assert not alive.exists()


def test_what_is_no_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="command must be a list of program and arguments, got 'python3'"):
        ts.deploy.TorchBuild("python3")
    with pytest.raises(ValueError, match="images and timeout must be > 0, got 0 and 900"):
        ts.deploy.TorchBuild(["python3"], images=0)
    with pytest.raises(FileNotFoundError, match="no such program: no-such-program"):
        ts.deploy.TorchBuild(["no-such-program"]).run(tmp_path / "net.ptl", images(1))
