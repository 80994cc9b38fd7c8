# SPDX-License-Identifier: BSD-3-Clause
import contextlib
import doctest
import importlib
import io
import re
from pathlib import Path

import pytest
import torch

import torchslim as ts

PAGES = sorted((Path(__file__).parents[3] / "docs" / "api" / "prune").glob("*.md"))
FILES = ["apply_masks", "channel_pruner", "magnitude_masks", "magnitude_pruner", "schedule"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_of_the_pages_print_what_they_say(page: Path) -> None:
    (example,) = re.findall(r"## Example\n```python\n(.*?)```", page.read_text(), re.DOTALL)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(example, str(page), "exec"), {})
    for line in out.getvalue().splitlines():
        assert f"# {line}" in example


@pytest.mark.parametrize("name", FILES)
def test_examples_of_the_docstrings(name: str) -> None:
    module = importlib.import_module(f"torchslim.prune.{name}")
    result = doctest.testmod(module, extraglobs={"torch": torch, **vars(ts.prune)})
    assert result.attempted > 0
    assert result.failed == 0
