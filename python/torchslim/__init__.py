# SPDX-License-Identifier: BSD-3-Clause
"""Makes networks small and fast enough for phones while they train.

Rooms: `quant` (fake-quantise, prepare, convert), `prune`, `distill`, `models`, `graph`, `deploy`.
"""

from pathlib import Path

from torchslim._load import load_library

load_library()

from torchslim import deploy, distill, graph, models, prune, quant  # noqa: E402
from torchslim._C import version as _version  # noqa: E402

__version__ = _version()

#: Where C++ projects find the package: `cmake -DCMAKE_PREFIX_PATH="<this>;<torch.utils.cmake_prefix_path>"`.
cmake_prefix_path = str(Path(__file__).parent / "share" / "cmake")

__all__ = ["__version__", "cmake_prefix_path", "deploy", "distill", "graph", "models", "prune", "quant"]
