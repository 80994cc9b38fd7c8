# SPDX-License-Identifier: BSD-3-Clause
"""A newcomer finds each thing where its name says: a test and a page each, short licensed files, examples that run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import torchslim as ts

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "quant", "prune", "distill", "models", "graph", "deploy")
MOST_LINES = 600

#: Python modules that are parts of another and tested with it.
TESTED_IN = {
    "cli/check": "test_cli_check",  # deploy has a test_check
    "deploy/evaluate": "test_report",
    "deploy/latency": "test_load",
    "deploy/loaded_model": "test_load",
    "deploy/lower": "test_save",
    "deploy/reference": "test_save",
    "deploy/charts": "test_report_page",
    "deploy/html_page": "test_report_page",
    "deploy/report_table": "test_report",
    "deploy/run_ptl": "test_save",
    "graph/graph": "test_capture",
    "graph/plain_attention": "test_capture",
    "graph/run": "test_capture",
    "models/blocks": "test_models",
    "models/mobilenet_v1": "test_models",
    "models/mobilenet_v2": "test_models",
    "models/resnet": "test_models",
    "prune/optimizer_state": "test_magnitude_pruner",
    "quant/activation_quantizer": "test_fake_quantize_module",
    "quant/batch_norm_layer": "test_operations",
    "quant/pair_layer": "test_operations",
    "quant/batches": "test_calibrate",
    "quant/encoder_layers": "test_usual_forms",
    "quant/layer_walk": "test_apply_gptq",
    "quant/layer_samples": "test_adaround",
    "quant/patterns": "test_prepare",
    "quant/prepared_model": "test_prepare",
    "quant/rewrite": "test_prepare",
    "quant/rewrite_operations": "test_operations",
    "quant/weighted_layers": "test_sensitivity",
}


def tracked(*patterns: str) -> list[Path]:
    """The files that git knows or would take; `*` crosses folders. Without git (an archive), all that match."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode == 0:
        paths = {ROOT / line for line in run.stdout.splitlines()}
    else:
        paths = {path for pattern in patterns for path in ROOT.glob(pattern.replace("*", "**/*"))}
    return sorted(path for path in paths if path.is_file())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


HEADERS = [path for path in tracked("csrc/include/torchslim/*.h") if path.parent.name in ROOMS]
MODULES = [
    path
    for path in tracked("python/torchslim/*.py")
    if path.parent.name in ROOMS and path.stem != "__init__" and not path.stem.startswith("_")
]
CODE = [
    path
    for path in tracked("csrc/*", "python/*", "tests/*", "examples/*", "tools/*", "Makefile", "CMakeLists.txt")
    if path.suffix in (".h", ".hpp", ".cpp", ".py", ".sh", ".cmake", ".in")
    or path.name in ("Makefile", "CMakeLists.txt")
]
PAGES = tracked("docs/*.md")
REFERENCE_PAGES = [page for page in PAGES if "api" in page.parts]


# ---- a test and a page of its name ----


@pytest.mark.parametrize("header", HEADERS, ids=relative)
def test_a_public_header_has_a_test(header: Path) -> None:
    """A C++ test of its name, or tests in its room that include it."""
    room = ROOT / "tests/cpp" / header.parent.name
    include = f"#include <torchslim/{header.parent.name}/{header.name}>"
    found = (room / f"{header.stem}_test.cpp").is_file() or any(include in file.read_text() for file in room.iterdir())
    assert found, f"{relative(header)} has no test: write {relative(room)}/{header.stem}_test.cpp"


@pytest.mark.parametrize("test", tracked("tests/cpp/*_test.cpp"), ids=relative)
def test_a_cpp_test_is_built(test: Path) -> None:
    lists = test.parent / "CMakeLists.txt"
    assert test.name in lists.read_text(), f"{relative(test)} is not built: list it in {relative(lists)}"


def has_page(header: Path) -> bool:
    """Whether there is a page of its name, or one in its room that names it."""
    name = f"torchslim/{header.parent.name}/{header.name}"
    pages = [page for page in REFERENCE_PAGES if page.parent.name == header.parent.name]
    return any(page.stem == header.stem or name in page.read_text() for page in pages)


@pytest.mark.parametrize("header", HEADERS, ids=relative)
def test_a_public_header_has_a_page(header: Path) -> None:
    room = ROOT / "docs/api" / header.parent.name
    found = has_page(header)
    assert found, f"{relative(header)} has no page: write {relative(room)}/{header.stem}.md, or name it in another"


@pytest.mark.parametrize("header", HEADERS, ids=relative)
def test_a_public_header_is_in_the_umbrella(header: Path) -> None:
    line = f"#include <torchslim/{header.parent.name}/{header.name}>"
    umbrella = ROOT / "csrc/include/torchslim/torchslim.h"
    assert line in umbrella.read_text(), f"{relative(umbrella)} lacks the line {line}"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_python_module_has_a_test_of_its_name(module: Path) -> None:
    name = TESTED_IN.get(f"{module.parent.name}/{module.stem}", f"test_{module.stem}")
    test = ROOT / "tests/python" / module.parent.name / f"{name}.py"
    assert test.is_file(), f"{relative(module)} has no test: write {relative(test)}, or name another in TESTED_IN"


# ---- files ----


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_a_file_names_its_licence(path: Path) -> None:
    head = path.read_text().splitlines()[:3]
    assert any("SPDX-License-Identifier: BSD-3-Clause" in line for line in head), (
        f"{relative(path)} does not begin with `SPDX-License-Identifier: BSD-3-Clause`"
    )


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=relative)
def test_a_file_is_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{relative(path)} has {lines} lines, at most {MOST_LINES} are read: divide it"


# ---- pages ----


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the code blocks below headings that begin with `Example`."""
    found: list[tuple[str, str]] = []
    in_example, block, lines = False, None, []
    for line in page.read_text().splitlines():
        if block is None and line.startswith("#"):
            in_example = line.lstrip("# ").startswith("Example")
        elif block is None and line.startswith("```"):
            block, lines = line[3:], []
        elif block is not None and line.startswith("```"):
            found += [(block, "\n".join(lines))] if in_example else []
            block = None
        else:
            lines.append(line)
    return found


def promised(example: list[tuple[str, str]]) -> list[str]:
    """The output a page shows: blocks without a language or, if there is none, comments beside or below a print."""
    shown = [text for language, text in example if language == ""]
    if shown:
        return shown
    lines = [line for language, text in example if language == "python" for line in text.splitlines()]
    return [line.partition("# ")[2] for line in lines if line.startswith("# ") or "print(" in line]


@pytest.mark.parametrize("page", [page for page in PAGES if "python" in dict(blocks(page))], ids=relative)
def test_an_example_runs_and_prints_what_its_page_says(page: Path, tmp_path: Path) -> None:
    example = blocks(page)
    program = "\n".join(text for language, text in example if language == "python")
    environment = {**os.environ, "PYTHONPATH": str(Path(ts.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, f"{relative(page)}: its example fails:\n{run.stderr}"
    printed = "".join(run.stdout.split())
    for output in promised(example):
        assert "".join(output.split()) in printed, (
            f"{relative(page)} says {output!r}, its example prints:\n{run.stdout}"
        )


@pytest.mark.parametrize("page", REFERENCE_PAGES, ids=relative)
def test_a_reference_page_has_an_example_and_its_source(page: Path) -> None:
    headings = [line.lstrip("# ") for line in page.read_text().splitlines() if line.startswith("## ")]
    for wanted in ("Example", "Source"):
        assert any(heading.startswith(wanted) for heading in headings), f"{relative(page)} has no heading `## {wanted}`"


@pytest.mark.parametrize("page", tracked("*.md"), ids=relative)
def test_a_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            path = os.path.relpath(page.parent / target, ROOT)
            exists = (ROOT / path).exists()
            assert exists, f"{relative(page)} links to {target}, which does not exist"


@pytest.mark.parametrize("page", tracked("docs/howto/*.md"), ids=relative)
def test_a_howto_names_files_that_exist(page: Path) -> None:
    for name in re.findall(r"`((?:csrc|python|tests|docs)/[^` ]+)`", page.read_text()):
        stem, brace, endings = name.partition("{")
        names = [stem + ending for ending in endings.rstrip("}").split(",")] if brace else [name]
        for each in names:
            exists = (ROOT / each).exists()
            assert exists, f"{relative(page)} names {each}, which does not exist"
