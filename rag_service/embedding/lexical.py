"""The lexical leg: BM25 term weights without IDF, which the store computes over what the asker may see."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast, get_args

from rag_service.embedding.base import TextKind
from rag_service.embedding.languages import Language, analyser_of
from rag_service.embedding.terms import Terms
from rag_service.errors import ConfigError
from rag_service.types import SparseVector

# BM25 as Robertson and Zaragoza (2009) give it. Lengths count for a little less than the usual 0.75 because passages
# are of similar length: measured over fourteen collections, see docs/retrieval.md.
_K1 = 1.2
_B = 0.7


def checked_language(analyser: str) -> Language:
    """The language of an analyser's name. Raises ConfigError for one that this version of the service has not."""
    language = analyser.partition("/")[0]
    if language not in get_args(Language) or analyser != analyser_of(language):
        raise ConfigError(f"There is no analyser {analyser!r}. Use a version of the service that has it.")
    return cast(Language, language)


@cache
def _terms(language: Language) -> Terms:
    """One for all indexes of a language: its words are remembered once."""
    return Terms(language)


class Bm25Encoder:
    """Term weights whose product, summed over shared terms and multiplied by IDF, is the BM25 score.

    Documents: count saturated by k1 and normalised by length against `average_length`, both in terms as `lengths`
    counts them. Queries: the plain count of each term, so that a long query stresses what it repeats.
    """

    def __init__(self, average_length: float = 256.0, language: Language = "auto") -> None:
        self._average_length = average_length
        self._language = language
        self._terms = _terms(language)

    @property
    def identity(self) -> str:
        return f"bm25({analyser_of(self._language)}, k1={_K1}, b={_B}, average={self._average_length:g})"

    def encode(self, texts: Sequence[str], kind: TextKind) -> list[SparseVector]:
        return [self._document(text) if kind == "document" else self._query(text) for text in texts]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [int(sum(self._terms.of_document(text).values())) for text in texts]

    def _document(self, text: str) -> SparseVector:
        counts = self._terms.of_document(text)
        norm = _K1 * (1 - _B + _B * sum(counts.values()) / self._average_length)
        return SparseVector(tuple(counts), tuple(count * (_K1 + 1) / (count + norm) for count in counts.values()))

    def _query(self, text: str) -> SparseVector:
        counts = self._terms.of_query(text)
        return SparseVector(tuple(counts), tuple(counts.values()))
