# SPDX-License-Identifier: BSD-3-Clause
"""A whole `deploy.report` of a small network in another build of torch: fails where an output is not the reference's.

python report_build.py NAME COMMAND...     the command runs a Python script with that build
"""

import sys
import warnings

import torch

import torchslim as ts
from torchslim.deploy.report_table import BUILDS_NOTE, build_rows, text_table

IMAGES, ASKED = 64, 16


def main() -> int:
    """Returns 0 if no output differs and the times are there."""
    name, *command = sys.argv[1:]
    torch.manual_seed(0)
    x, labels = torch.rand(IMAGES, 1, 28, 28), torch.randint(10, (IMAGES,))
    plain, other = (ts.models.mobilenet_v1(10, width=0.25, in_channels=1) for _ in range(2))
    prepared = ts.quant.prepare(other, x)
    prepared(x)
    report = ts.deploy.report(
        prepared.eval(),
        x,
        labels,
        float_model=plain.eval(),
        runs=20,
        torch_builds={name: ts.deploy.TorchBuild(command, images=ASKED, timeout=300)},
    )
    build = report["torch_builds"][name]
    print(text_table(build_rows(report), left=(0, 1)) + BUILDS_NOTE)
    return 0 if build["differing"] == build["max_steps"] == 0 and build["cpu_ms"]["ratio"] > 0 else 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
