"""What every peer can do: take passages in and find some again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and the groups that may read it."""

    id: str
    text: str
    groups: tuple[str, ...]


class Peer(Protocol):
    """One way to retrieve, as its documentation says to use it. Made with the folder of the embedding model."""

    name: str
    version: str

    def ingest(self, passages: Sequence[Passage]) -> None:
        """Embed and index everything; done when it returns."""
        ...

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        """Ids of the `k` best passages, best first; with `groups`, of those that one of them may read."""
        ...

    def close(self) -> None: ...


def versions(*packages: str) -> str:
    """Installed versions as one string. Raises PackageNotFoundError, an ImportError, when one is missing."""
    return ", ".join(f"{package} {version(package)}" for package in packages)
