# SPDX-License-Identifier: BSD-3-Clause
"""Where the checkout and this Python's programs are."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
