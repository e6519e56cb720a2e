"""Where sentences begin, in scripts that put blanks between them and in scripts that do not."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A Latin full stop ends a sentence when white space and no lower-case letter follow; `++` keeps long runs linear.
_END = re.compile(
    r"""[.!?…؟۔։][\"'”’»)\]]*+\s++(?=[^\sa-z])"""
    r"""|[。！？｡．।॥]++["'”’」』）】》]*+\s*+"""
)


def sentence_starts(text: str, start: int, end: int) -> Iterator[int]:
    """Offsets inside text[start:end] at which a sentence begins, the first one excluded."""
    for found in _END.finditer(text, start, end):
        if found.end() < end:
            yield found.end()
