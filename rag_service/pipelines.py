"""How an index version turns text into vectors: each has its own model, chunker and analyser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rag_service.chunking.base import Chunker
from rag_service.embedding.base import Embedder, LexicalEncoder
from rag_service.types import IndexVersion


@dataclass(frozen=True)
class Pipelines:
    """Each gives what an index version was, or is to be, built with.

    `embedder` and `chunker` raise ConfigError where that cannot be had in this process.
    """

    embedder: Callable[[IndexVersion], Embedder]
    chunker: Callable[[IndexVersion], Chunker]
    lexical: Callable[[IndexVersion], LexicalEncoder]
