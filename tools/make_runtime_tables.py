# SPDX-License-Identifier: BSD-3-Clause
"""Writes what the torch that runs this script has: versions that it loads, and every operator with its arguments.

`deploy.check` compares files with these tables. Needs torch alone, of any version; NAME is the version that users know:

    python make_runtime_tables.py csrc/deploy/runtime_tables NAME
"""

import io
import re
import sys
from pathlib import Path

import torch
from torch.jit.mobile import _load_for_lite_interpreter


def bytecode_range() -> tuple[int, int]:
    """Returns the smallest and the largest bytecode version that loads: the loader names them when it refuses one."""

    class Nothing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    file = torch.jit.script(Nothing())._save_to_buffer_for_lite_interpreter()
    head = b"\x80\x02K"  # of bytecode.pkl: pickle protocol 2, then the version as one byte
    at = file.index(head) + len(head)
    try:
        _load_for_lite_interpreter(io.BytesIO(file[:at] + b"\xff" + file[at + 1 :]))
    except RuntimeError as error:
        found = re.search(r"between (\d+) and (\d+) but the model version is 255", str(error))
        if found:
            return int(found[1]), int(found[2])
        raise
    raise RuntimeError("this torch loads a file of bytecode version 255")


def operators() -> list[str]:
    """Returns a line for each operator: name.overload, its arguments ("any" for "..."), and how many must be given."""
    lines = set()
    for schema in torch._C._jit_get_all_schemas():
        outputs = sum(argument.is_out for argument in schema.arguments)  # given behind all others
        inputs = schema.arguments[: len(schema.arguments) - outputs]
        required = max((i for i, argument in enumerate(inputs, 1) if not argument.has_default_value()), default=0)
        count = "any" if "..." in str(schema) else len(schema.arguments)
        overload = f".{schema.overload_name}" if schema.overload_name else ""
        lines.add(f"{schema.name}{overload} {count} {required + outputs}")
    return sorted(lines)


def main() -> None:
    """Writes the table NAME.inc into the folder."""
    folder, name = sys.argv[1:]
    lowest, highest = bytecode_range()
    table = [
        "// SPDX-License-Identifier: BSD-3-Clause",
        "// Written by tools/make_runtime_tables.py: each operator, its arguments, and how many must be given.",
        'R"(' + f"bytecode {lowest} {highest}",
        f"operators {torch._C._get_max_operator_version()}",
        *operators(),
        ')"',
    ]
    path = Path(folder) / f"{name}.inc"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(table) + "\n")
    print(f"{path}: {len(table) - 5} operators of torch {torch.__version__}")


if __name__ == "__main__":
    main()
