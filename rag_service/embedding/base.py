"""The two encoder ports: dense meaning and lexical terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag_service.types import EmbedderIdentity, SparseVector

TextKind: TypeAlias = Literal["document", "query"]


class Embedder(Protocol):
    @property
    def identity(self) -> EmbedderIdentity:
        """Name, revision (a hash of the weights where they are local) and dimensions."""
        ...

    @property
    def computation(self) -> str:
        """What computes, and in which number format: the same model elsewhere gives slightly other vectors."""
        ...

    @property
    def window(self) -> int:
        """The number of tokens of one text that the model reads, special tokens not counted."""
        ...

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character spans of the model's own tokens of `text`, in order, without special tokens."""
        ...

    def legible(self, text: str) -> float:
        """The share of the letters of `text` in scripts that the model was trained on, 0 to 1; 1 where unknown."""
        ...

    def embed(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        """Unit-length vectors, shape (len(texts), dimensions). Thread-safe; queries go before documents.

        Raises RetryableError when a remote model does not answer.
        """
        ...


class LexicalEncoder(Protocol):
    @property
    def identity(self) -> str:
        """Analyser and parameters; stored with the index version."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The terms of each text, counted as documents are normalised by."""
        ...

    def encode(self, texts: Sequence[str], kind: TextKind) -> list[SparseVector]:
        """Term weights; a document scores the sum over shared terms of query weight x document weight x IDF."""
        ...
