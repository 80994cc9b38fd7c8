# SPDX-License-Identifier: BSD-3-Clause
"""Pages of which some parts are made by a script: those between `<!-- begin NAME -->` and the next `<!-- end -->`."""

import re
from collections.abc import Callable


def fill(text: str, part: Callable[[str], str]) -> str:
    """Returns the page's `text` with each marked part made anew: `part(NAME)` stands there afterwards."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- begin {match[1]} -->\n{part(match[1])}\n<!-- end -->"

    return re.sub(r"<!-- begin (.+?) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)
