"""Real text that every machine has: what the installed Python packages say of themselves, and our own docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

MAX_PACKAGES = 150
# What a CPU without bfloat16 embeds in about half a minute.
MAX_TOTAL_CHARACTERS = 800_000
MAX_CHARACTERS = 6_000
MIN_CHARACTERS = 200
_OURS = "rag-service"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUFFIX = {"text/markdown": ".md", "text/x-rst": ".rst"}


def gather(folder: Path) -> int:
    """Write the texts into `folder`; returns how many there are. Files of an earlier time are written over."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, text in [*_package_texts(), *_own_docs()]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "replace"))
        count += 1
    return count


def _package_texts() -> Iterator[tuple[str, str]]:
    packages = {str(package.name).lower(): package for package in distributions() if _is_plain(package)}
    described = ((name, _description(package), package) for name, package in sorted(packages.items()) if name != _OURS)
    total = count = 0
    for _, description, package in described:
        if len(description) < MIN_CHARACTERS:
            continue
        suffix = _SUFFIX.get(_content_type(package), ".txt")
        text = _titled(package, _cut(description), suffix)
        total, count = total + len(text), count + 1
        if count > MAX_PACKAGES or total > MAX_TOTAL_CHARACTERS:
            return
        yield f"packages/{package.name}{suffix}", text


def _is_plain(package: Distribution) -> bool:
    """Whether its name can be a file's: not every folder that looks like a package is one."""
    return bool(package.name and _PLAIN_NAME.fullmatch(package.name))


def _description(package: Distribution) -> str:
    """The long description: a header in old metadata, the body in newer."""
    metadata = package.metadata
    text = metadata["Description"] if "Description" in metadata else metadata.get_payload()  # type: ignore[attr-defined] # it is an email.message.Message
    return str(text or "").strip()


def _content_type(package: Distribution) -> str:
    given = package.metadata["Description-Content-Type"] if "Description-Content-Type" in package.metadata else ""  # noqa: SIM401 - what metadata promises has no get
    return str(given).partition(";")[0].strip().lower()


def _cut(text: str) -> str:
    """At most MAX_CHARACTERS, ending with a whole line."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return text[: text.rfind("\n", 0, MAX_CHARACTERS) + 1 or MAX_CHARACTERS]


def _titled(package: Distribution, text: str, suffix: str) -> str:
    """The text under the package's name and summary."""
    metadata = package.metadata
    summary = " ".join(metadata["Summary"].split()) if "Summary" in metadata else ""
    rule = {".md": "", ".rst": f"{'=' * len(package.name)}\n", ".txt": ""}[suffix]
    mark = "# " if suffix == ".md" else ""
    return f"{mark}{package.name}\n{rule}\n{summary}\n\n{text}\n"


def _own_docs() -> Iterator[tuple[str, str]]:
    """README, CHANGELOG and guides of this project, where it runs from its source tree."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return
    for path in (root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").glob("*.md"))):
        if path.is_file():
            yield f"{_OURS}/{path.name}", path.read_text(encoding="utf-8", errors="replace")
