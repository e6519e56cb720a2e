"""Ways to split a text into passages: ours, unstructured's by title, and a fixed number of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from benchmarks.spans import Passage
from rag_service.chunking.base import TokenSpans, embedded_text
from rag_service.chunking.structure import StructureChunker
from rag_service.types import ParsedDocument


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage and the text that is embedded for it."""

    passage: Passage
    embedded: str


class Splitter(Protocol):
    name: str

    def split(self, corpus: str, text: str) -> list[Piece]: ...


class Ours:
    """The service's own chunker. The document has no title; headings are embedded with each passage, as always."""

    def __init__(self, token_spans: TokenSpans, max_tokens: int) -> None:
        self.name = f"rag-service, {max_tokens} tokens"
        self._chunker = StructureChunker(token_spans, max_tokens)

    def split(self, corpus: str, text: str) -> list[Piece]:
        chunks = self._chunker.chunk(ParsedDocument(text=text, layout="markdown"), "")
        return [Piece(Passage(corpus, c.start, c.end), embedded_text("", c.heading_path, c.text)) for c in chunks]


class FixedTokens:
    """A cut after every `size` tokens of the embedding model, wherever that falls, without overlap."""

    def __init__(self, token_spans: TokenSpans, size: int = 200) -> None:
        self.name = f"fixed, {size} tokens"
        self._token_spans = token_spans
        self._size = size

    def split(self, corpus: str, text: str) -> list[Piece]:
        starts = [start for start, _ in self._token_spans(text)][:: self._size]
        ends = [*starts[1:], len(text)]
        return [Piece(Passage(corpus, s, e), text[s:e]) for s, e in zip(starts, ends, strict=True)]


class ByTitle:
    """unstructured's `partition_text` and `chunk_by_title`, all options at their defaults (500 characters).

    The library would download a spaCy model for its guess at what is a title; a blank one with a sentence splitter
    stands in, so that it works offline: long paragraphs are then plain text instead of narrative text.
    """

    name = "unstructured chunk_by_title"

    def split(self, corpus: str, text: str) -> list[Piece]:
        return [Piece(passage, chunk) for passage, chunk in _located(corpus, text, _chunks_by_title(text))]


def _chunks_by_title(text: str) -> list[str]:
    import spacy
    from unstructured.chunking.title import chunk_by_title
    from unstructured.nlp import tokenize
    from unstructured.partition.text import partition_text

    def blank() -> spacy.language.Language:
        model = spacy.blank("en")
        model.add_pipe("sentencizer")
        return model

    tokenize._load_spacy_model = blank
    return [chunk.text for chunk in chunk_by_title(partition_text(text=text, languages=[""]))]


def _located(corpus: str, text: str, chunks: list[str]) -> Iterator[tuple[Passage, str]]:
    """Where chunks stand in the text they were made of: their letters and digits in order, whatever lies between.

    Raises ValueError for a chunk that is not there.
    """
    places = [place for place, character in enumerate(text) if character.isalnum()]
    letters = "".join(text[place] for place in places)
    after = 0
    for chunk in chunks:
        wanted = "".join(character for character in chunk if character.isalnum())
        if not wanted:
            continue
        found = letters.find(wanted, after)
        if found < 0:
            raise ValueError(f"not found in {corpus}: {chunk[:80]!r}")
        after = found + len(wanted)
        yield _with_punctuation(corpus, text, places[found], places[after - 1] + 1), chunk


def _with_punctuation(corpus: str, text: str, start: int, end: int) -> Passage:
    """The passage with what stands before and behind it without a blank: quotes, brackets, a full stop."""
    while start and not (text[start - 1].isspace() or text[start - 1].isalnum()):
        start -= 1
    while end < len(text) and not (text[end].isspace() or text[end].isalnum()):
        end += 1
    return Passage(corpus, start, end)
