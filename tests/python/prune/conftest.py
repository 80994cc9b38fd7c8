# SPDX-License-Identifier: BSD-3-Clause
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # for `reference`


@pytest.fixture(params=["portable", "avx2"])
def cpu_capability(request: pytest.FixtureRequest) -> Iterator[None]:
    from torchslim import _C

    try:
        _C.force_cpu_capability(request.param)
    except ValueError:
        pytest.skip("this CPU has no AVX2")
    yield
    _C.force_cpu_capability(None)
