"""Which scripts a model can read, by its vocabulary: an English model takes Arabic apart into meaningless letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache

# Entries of one script that make it known. all-MiniLM-L6-v2, trained on English, holds 27,762 Latin, 488 Han, 184 Kana
# and at most 86 entries of any other script (its letters, alone and inside words); multilingual models hold thousands.
_LEAST = {"CJK": 1_500}
_LEAST_OF_OTHERS = 200


def known_scripts(vocabulary: Iterable[str]) -> frozenset[str]:
    """The scripts of which a vocabulary holds more than the letters; named as Unicode names its characters."""
    entries = Counter(script for script in map(_first_script, vocabulary) if script)
    return frozenset(script for script, count in entries.items() if count >= _LEAST.get(script, _LEAST_OF_OTHERS))


def share_known(text: str, scripts: Collection[str]) -> float:
    """The share of the letters of `text` that belong to `scripts`; 1 for a text without letters."""
    if text.isascii() and "LATIN" in scripts:
        return 1.0
    letters = [_script(character) for character in text if character.isalpha()]
    return sum(script in scripts for script in letters) / len(letters) if letters else 1.0


def _first_script(entry: str) -> str | None:
    return next((_script(character) for character in entry if character.isalpha()), None)


@lru_cache(maxsize=65_536)
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ", 1)[0]
    return {"HIRAGANA": "KANA", "KATAKANA": "KANA", "FULLWIDTH": "LATIN", "HALFWIDTH": "KANA"}.get(name, name)
