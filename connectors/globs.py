"""Globs over relative paths, as regular expressions that no glob can make slow."""

from __future__ import annotations

import re
from collections.abc import Sequence


def compile_globs(globs: Sequence[str]) -> re.Pattern[str]:
    """One pattern that fully matches the relative paths that any of the globs does; no globs match nothing.

    `*` is any part of a name, `?` one character of a name, `**` as a whole part any number of parts, none included;
    everything else stands for itself. As in `PurePath.full_match`, `*.md` is a file at the top, `**/*.md` one anywhere.
    """
    return re.compile("|".join(_translate(glob) for glob in globs) or r"(?!)", re.DOTALL)


def _translate(glob: str) -> str:
    """The regular expression of one glob; its time does not grow exponentially, whatever the glob.

    What stands between two wildcards is taken where it first fits, for good (`(?>`): a later place would only leave
    less for the rest. The last piece must reach the end, and so alone may look further.
    """
    stretches: list[list[str]] = [[]]
    for part in glob.split("/"):
        if part == "**":
            stretches.append([])
        else:
            stretches[-1].append(_translate_name(part) + "/")
    first, *others = ("".join(stretch) for stretch in stretches)
    if not others:
        return first[:-1]
    *middle, last = others
    found = "".join(f"(?>(?:[^/]+/)*?{stretch})" for stretch in middle if stretch)
    return first + found + (f"(?:[^/]+/)*{last[:-1]}" if last else ".*")


def _translate_name(name: str) -> str:
    first, *others = (re.escape(piece).replace(r"\?", "[^/]") for piece in name.split("*"))
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + "[^/]*" + last
