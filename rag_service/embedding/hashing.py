"""A test double: word counts hashed to a vector. Deterministic over processes and machines; knows no meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rag_service.embedding.base import TextKind
from rag_service.types import EmbedderIdentity

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")


class HashingEmbedder:
    """Texts that share words have similar vectors. A text without words is the first unit vector."""

    def __init__(self, dimensions: int = 64, window: int = 254) -> None:
        self._dimensions = dimensions
        self._window = window

    @property
    def identity(self) -> EmbedderIdentity:
        return EmbedderIdentity("hashing", "1", self._dimensions)

    @property
    def computation(self) -> str:
        return "python"

    @property
    def window(self) -> int:
        return self._window

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [found.span() for found in _TOKEN.finditer(text)]

    def legible(self, text: str) -> float:
        return 1.0

    def embed(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in _WORD.findall(text.lower()):
                row[self._place(word)] += 1
            if not row.any():
                row[0] = 1
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _place(self, word: str) -> int:
        digest = blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest) % self._dimensions
