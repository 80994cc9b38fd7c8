# SPDX-License-Identifier: BSD-3-Clause
"""Runs the files of `make_files.py` in the lite interpreter of the torch that runs this script, and compares.

Needs torch alone, 1.13 or later, and Python 3.9. Int8 files must answer what the integer reference answers with this
runtime's input rule, without one difference; where parts compute in float, now and then a sum falls to the other side
of a step. Float files must answer the same to a relative 1e-4. What `deploy.check` says of each file must be so.

    python run_files.py FOLDER RUNTIME     the runtime by the name that `deploy.check` has for it
"""

import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.jit.mobile import _load_for_lite_interpreter

# At the end: the package's modules must not stand for Python's own. This one needs no more than this script does.
sys.path.append(str(Path(__file__).resolve().parents[2] / "python/torchslim/deploy"))
from _torch_build_script import input_rule

MOST_RELATIVE = 1e-4  # of float files
MOST_STEPS, MOST_SHARE = 1.5, 0.01  # of int8 files with parts in float

Entry = dict[str, Any]  # of one file, as make_files.py describes it
Totals = dict[str, float]


def histogram(steps: torch.Tensor) -> str:
    """Returns how often each difference but 0 occurs, as text."""
    values, counts = steps[steps != 0].round().unique(return_counts=True)
    return ", ".join(f"{int(value):+d}: {int(counts[i])}" for i, value in enumerate(values))


def run_int8(folder: Path, entry: Entry, rule: str, totals: Totals) -> str:
    """Returns what differs, as text, "" if nothing does."""
    model = _load_for_lite_interpreter(str(folder / entry["file"]))
    failures = []
    for name, images in entry["images"].items():
        result, expected = model(images), entry["answers"][rule][name]
        totals["outputs"] += result.numel()
        if entry["step"] is None:  # ends in floats
            relative = float((result - expected).abs().max() / expected.abs().max())
            if relative > MOST_RELATIVE:
                failures.append(f"{name}: relative difference {relative:.1e}")
            continue
        steps = (result - expected) / entry["step"]
        differ = int((result != expected).sum())
        exact = entry["float nodes"] == 0
        totals["exact" if exact else "in part"] += result.numel()
        totals["differ" if exact else "differ in part"] += differ
        few = differ <= max(1, MOST_SHARE * result.numel()) and float(steps.abs().max()) <= MOST_STEPS
        if differ and (exact or not few):
            failures.append(f"{name}: {differ} of {result.numel()} outputs differ, by steps: {histogram(steps)}")
    return "; ".join(failures)


def run_float(folder: Path, entry: Entry, totals: Totals) -> str:
    """Returns what differs, as text, "" if nothing does."""
    result = _load_for_lite_interpreter(str(folder / entry["file"]))(entry["images"])
    relative = float((result - entry["answer"]).abs().max() / entry["answer"].abs().max())
    totals["relative"] = max(totals["relative"], relative)
    return "" if relative <= MOST_RELATIVE else f"relative difference {relative:.1e}"


def run_refused(folder: Path, entry: Entry, operators: list[str]) -> str:
    """Returns what is wrong, as text, "" if the runtime refuses the file and names the operators."""
    try:
        _load_for_lite_interpreter(str(folder / entry["file"]))
    except RuntimeError as error:
        return "" if all(name in str(error) for name in operators) else f"it is refused for {error}"
    return f"it loads, but deploy.check says that it lacks {', '.join(operators)}"


def main() -> int:
    """Returns 0 if every file answers as it must."""
    folder, runtime = Path(sys.argv[1]), sys.argv[2]
    start = time.time()
    torch.backends.quantized.engine = "qnnpack"
    rule = input_rule()
    title = f"torch {torch.__version__} on {platform.machine()}"
    entries = torch.load(str(folder / "files.pt"))
    totals = dict.fromkeys(("outputs", "exact", "in part", "differ", "differ in part", "relative"), 0)
    failed = files = refused = between = 0
    for name, kinds in entries.items():
        for kind, entry in kinds.items():
            files += 1
            between += sum(entry.get("codes between rules", {}).values())
            try:
                with torch.no_grad():
                    if entry["problems"][runtime]:
                        refused += 1
                        wrong = run_refused(folder, entry, entry["problems"][runtime])
                    elif kind == "int8":
                        wrong = run_int8(folder, entry, rule, totals)
                    else:
                        wrong = run_float(folder, entry, totals)
            except RuntimeError as error:
                wrong = str(error).strip().splitlines()[0][:300]
            if wrong:
                failed += 1
                print(f"{name}, {kind}: {wrong}", flush=True)
    print(f"{title}: input rule {rule}, by which {between} input codes differ from the other rule's")
    print(f"{title}: {totals['differ']} of {totals['exact']} outputs of integer networks differ from the reference")
    print(f"{title}: {totals['differ in part']} of {totals['in part']} outputs of networks with parts in float differ")
    print(f"{title}: float files differ by at most {totals['relative']:.1e}, relative")
    print(
        f"{title}: {files - failed} of {files} files passed in {time.time() - start:.0f} s,"
        f" {refused} of them by being refused as deploy.check says"
    )
    return 1 if failed or not files else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
