# SPDX-License-Identifier: BSD-3-Clause
"""The command hands over to `deploy.check`, which has tests of its own."""

from dataclasses import dataclass, field

import pytest

import torchslim as ts
from torchslim.cli import main


@dataclass
class Result:
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.problems)} problems"


@pytest.mark.parametrize("problems", [[], ["aten::erfinv"]])
def test_problems_are_code_1(
    problems: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def check(path: str, runtime: str) -> Result:
        asked.append((path, runtime))
        return Result(problems)

    monkeypatch.setattr(ts.deploy, "check", check, raising=False)
    assert main(["check", "net.ptl", "--runtime", "1.13.1"]) == len(problems)
    assert main(["check", "net.ptl"]) == len(problems)
    assert asked == [("net.ptl", "1.13.1"), ("net.ptl", "current")]
    assert capsys.readouterr().out == f"{len(problems)} problems\n" * 2
