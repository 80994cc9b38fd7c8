# SPDX-License-Identifier: BSD-3-Clause
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from deploy_zoo import images, trained, vgg

import torchslim as ts

VOID = {"meta", "use", "path", "rect", "br"}


class Tags(HTMLParser):
    """Collects tags and what they refer to; every tag must be closed by its own end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    x = images(8)
    builds = {"this one": ts.deploy.TorchBuild([sys.executable])}
    return ts.deploy.report(
        trained(vgg), x, torch.randint(10, (8,)), float_model=vgg().eval(), runs=3, torch_builds=builds
    )


def test_the_page_holds_everything_and_asks_for_nothing(report: dict[str, object], tmp_path: Path) -> None:
    ts.deploy.report_page(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen.count("svg") == 7
    assert tags.seen.count("table") == 3
    assert all(reference.startswith("#") for reference in tags.references)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert "they say nothing about a phone" in text
    assert "a rough stand-in for instructions executed, and says nothing of a phone&#x27;s latency" in text
    assert f"{report['bytes']['student_int8']:,} bytes" in text  # type: ignore[index]
    ts.deploy.report_page(report, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "report.html").read_bytes()


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    ts.deploy.report_page({"accuracy": {"int8": 90.0}, "machine": "<a & b>"}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "&lt;a &amp; b&gt;" in text
    assert "phone" not in text
    assert "90.00 %" in text


def test_a_layer_that_runs_twice_is_drawn_twice(report: dict[str, object], tmp_path: Path) -> None:
    layers = report["layers"]
    assert isinstance(layers, list)
    twice = {**report, "layers": [layers[1], layers[1]]}
    ts.deploy.report_page(twice, tmp_path / "report.html")
    assert f"{layers[1]['layer']} (2)" in (tmp_path / "report.html").read_text()


def test_the_extra_is_named_where_it_is_missing(
    report: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torchslim.deploy.charts", raising=False)
    monkeypatch.delattr(ts.deploy, "charts", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'torchslim\[report\]'"):
        ts.deploy.report_page(report, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_relative_differences_are_named(report: dict[str, object], tmp_path: Path) -> None:
    def relative(found: object) -> dict[str, object]:
        assert isinstance(found, dict)
        return {**found, "differing": None, "max_steps": None, "max_relative": 0.0012}

    places = {}
    for key in ("runtimes", "torch_builds"):
        places[key] = {name: relative(found) for name, found in report[key].items()}  # type: ignore[attr-defined]
    floats = {**report, **places, "agreement": relative(report["agreement"]), "differences_in": "relative"}
    ts.deploy.report_page(floats, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.count("1.2e-03, relative") == 2
    assert "1.2e-03 of the largest output: the network ends in floats" in text
    assert "None" not in text
