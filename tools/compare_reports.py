# SPDX-License-Identifier: BSD-3-Clause
"""Compares the reports of the Python and the C++ demo; fails where an accuracy is more than 1.5 points apart.

Only runs of the same length are compared: of the same form, with no epoch dropped for want of time.
"""

import argparse
import json
import sys
from pathlib import Path

MOST_POINTS = 1.5


def main() -> int:
    """Prints a line per accuracy. Returns 1 if one is too far apart; two forms (short, full) are not compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path)
    parser.add_argument("cpp", type=Path)
    options = parser.parse_args()
    if not options.python.is_file():
        print(f"{options.python} is not there (make demo): nothing to compare with")
        return 0
    python, cpp = (json.loads(path.read_text()) for path in (options.python, options.cpp))
    if python["quick"] != cpp["quick"]:
        print("one report is of the short form and one of the full: not compared")
        return 0
    dropped = python["epochs_dropped"]
    if dropped:
        print(f"{options.python}: {dropped} epochs were dropped, C++ drops none: not compared (MINUTES=N allows more)")
        return 0
    far = []
    for name, value in python["accuracy"].items():
        points = cpp["accuracy"][name] - value
        print(f"{name:14} Python {value:6.2f} %   C++ {cpp['accuracy'][name]:6.2f} %   {points:+.2f} points")
        if abs(points) > MOST_POINTS:
            far.append(name)
    if far:
        print(f"error: more than {MOST_POINTS} points apart: {', '.join(far)}", file=sys.stderr)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
