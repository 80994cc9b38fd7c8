# SPDX-License-Identifier: BSD-3-Clause
"""Runs the files of a question in the torch that runs this script, and answers: the other end of `TorchBuild.run`.

Needs torch alone, 1.13 or later, and Python 3.9.

    python _torch_build_script.py FOLDER     reads question.pt there and writes answer.pt
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.jit.mobile import _load_for_lite_interpreter

Model = Callable[[torch.Tensor], torch.Tensor]
load: Callable[[str], Model] = _load_for_lite_interpreter
BATCH = 32
WARM_UP, PASSES = 2, 10


def input_rule() -> str:
    """Returns the name of the rule by which this build rounds floats to codes; it asks by halves of a step."""
    halves = torch.arange(64) + 0.5
    codes = torch.quantize_per_tensor(halves, 1.0, 117, torch.quint8).int_repr().to(torch.float32)
    rules = {"torch-2.13": torch.round(halves + 117), "round-then-add": torch.round(halves) + 117}
    for name, expected in rules.items():
        if torch.equal(codes, expected):
            return name
    raise SystemExit(f"this runtime rounds 0.5, 1.5, ... steps to the codes {codes.tolist()}: by no known rule")


def cpu_ms(model: Model, image: torch.Tensor) -> float:
    """Returns the CPU time of this process, user and system, for one image: the median of some passes."""
    taken = []
    for _ in range(WARM_UP + PASSES):
        begin = time.process_time()
        model(image)
        taken.append(1000 * (time.process_time() - begin))
    return statistics.median(taken[WARM_UP:])


def main() -> None:
    """Writes the answer under another name first: it is whole or not there."""
    folder = sys.argv[1]
    question = torch.load(os.path.join(folder, "question.pt"))
    images = question["images"]
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "qnnpack"
    with torch.no_grad():
        int8 = load(question["int8"])
        answer = {
            "torch": str(torch.__version__),
            "machine": platform.machine(),
            "input_rule": input_rule(),
            "outputs": torch.cat([int8(part) for part in torch.split(images, BATCH)]),
            "cpu_ms_int8": cpu_ms(int8, images[:1]),
            "cpu_ms_float": None,
        }
        if question["float"] is not None:
            answer["cpu_ms_float"] = cpu_ms(load(question["float"]), images[:1])
    torch.save(answer, os.path.join(folder, "answer.part"))
    os.replace(os.path.join(folder, "answer.part"), os.path.join(folder, "answer.pt"))


if __name__ == "__main__":
    main()
