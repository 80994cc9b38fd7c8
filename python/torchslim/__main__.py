# SPDX-License-Identifier: BSD-3-Clause
"""`python -m torchslim`: the same as the command `torchslim`."""

import sys

from torchslim.cli import main

if __name__ == "__main__":
    sys.exit(main())
