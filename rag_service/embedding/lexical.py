"""The lexical leg: BM25 term weights without IDF, which the store computes over what the asker may see."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, TypeAlias, cast, get_args

from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, StopwordsSet

from rag_service.embedding.base import TextKind
from rag_service.errors import ConfigError
from rag_service.types import SparseVector

Analyser: TypeAlias = Literal["english", "multilingual"]

# The usual parameters of BM25 (Robertson and Zaragoza, 2009).
_K1 = 1.2
_B = 0.75
# Saturation set so far away, and without length, a term's weight is its plain count.
_COUNTING_K1 = 1e9

_ACCENTS = re.compile("[\u0300-\u036f]")
# Scripts that put no blanks between words (Thai to Khmer, Han, Kana), and Hangul, whose words carry their particles.
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)


def checked_analyser(name: str) -> Analyser:
    """Raises ConfigError for an index that was built with an analyser this version does not have."""
    if name not in get_args(Analyser):
        raise ConfigError(f"There is no analyser {name!r}. Use a version of the service that has it.")
    return cast(Analyser, name)


class Bm25Encoder:
    """Term weights whose product, summed over shared terms and multiplied by IDF, is the BM25 score.

    Documents: count saturated by k1 and normalised by length against `average_length` (in terms, stop words not
    counted). Queries: the plain count of each term, so that a long query stresses what it repeats.
    `analyser` english drops stop words and stems; multilingual does neither. Both fold case, width and accents, and
    read scripts without blanks as pairs of neighbouring characters.
    """

    def __init__(self, average_length: float = 256.0, analyser: Analyser = "english") -> None:
        self._average_length = average_length
        self._analyser = analyser

    @property
    def identity(self) -> str:
        return f"bm25-1({self._analyser}, k1={_K1}, b={_B}, average={self._average_length:g})"

    def encode(self, texts: Sequence[str], kind: TextKind) -> list[SparseVector]:
        model = self._documents if kind == "document" else self._queries
        vectors = [model.embed_document(_folded(text)) for text in texts]
        return [SparseVector(vector.indices, vector.values) for vector in vectors]

    @cached_property
    def _documents(self) -> Bm25:
        return self._model(_K1, _B)

    @cached_property
    def _queries(self) -> Bm25:
        return self._model(_COUNTING_K1, 0.0)

    def _model(self, k1: float, b: float) -> Bm25:
        if self._analyser == "english":
            return Bm25(Bm25Config(k=k1, b=b, avg_len=self._average_length, language="english", ascii_folding=True))
        return Bm25(
            Bm25Config(
                k=k1,
                b=b,
                avg_len=self._average_length,
                stopwords=StopwordsSet(),
                stemmer=DisabledStemmer(),
                ascii_folding=True,
            )
        )


def _folded(text: str) -> str:
    """Compatibility forms made equal (NFKC), combining accents dropped also where no composed letter exists, and
    scripts without blanks in pairs of characters.
    """
    if text.isascii():
        return text
    clean = text.encode("utf-8", "replace").decode()
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", clean))
    return _UNSPACED.sub(_pairs, unicodedata.normalize("NFKC", bare))


def _pairs(run: re.Match[str]) -> str:
    characters = run[0]
    pairs = [characters[place : place + 2] for place in range(len(characters) - 1)]
    return f" {' '.join(pairs or [characters])} "
