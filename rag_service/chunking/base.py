"""The chunker port, and the one rule of what is embedded for a chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from rag_service.types import ChunkText, ParsedDocument

# text -> the character span of each of its tokens, in order, without special tokens
TokenSpans: TypeAlias = Callable[[str], Sequence[tuple[int, int]]]

# English prose has 4 to 5 characters to the token; a text far above that (an unknown word of a megabyte, a run of
# blanks) is bounded by its characters instead.
MAX_CHARS_PER_TOKEN = 16


class Chunker(Protocol):
    @property
    def identity(self) -> str:
        """Name and parameters; stored with the index version. Equal identity, equal chunks."""
        ...

    def chunk(self, document: ParsedDocument, title: str) -> list[ChunkText]:
        """Cut a document into passages with exact spans, in order of their start.

        `self.embedded(self.fitting_title(title), chunk)` of every chunk fits the embedding model's window.
        """
        ...

    def fitting_title(self, title: str) -> str:
        """The title as it is embedded with each chunk: cut so that text has room beside it."""
        ...

    def embedded(self, title: str, content: ChunkText) -> str:
        """The text that is embedded for a chunk: `embedded_text`, or the bare passage."""
        ...

    def counted(self, title: str, content: ChunkText) -> str:
        """The text whose words the lexical leg counts: `lexical_text`, or the bare passage."""
        ...


def embedded_text(title: str, heading_path: Sequence[str], text: str) -> str:
    """The text that is embedded and lexically indexed for a chunk: where it stands, then what it says."""
    path = [part for part in (title, *heading_path) if part]
    unique = [part for place, part in enumerate(path) if part not in path[:place]]
    return f"{' > '.join(unique)}\n\n{text}" if unique else text


def bare_text(title: str, heading_path: Sequence[str], text: str) -> str:
    """The passage alone, whatever it stands under."""
    return text


def lexical_text(title: str, heading_path: Sequence[str], text: str) -> str:
    """The text whose words the lexical leg counts for a chunk: title and headings count twice.

    Measured on fifteen collections: twice gains 0.0045 nDCG@10 over once on average and loses 0.0013 at worst; three
    times gains 0.006 and loses 0.004 at worst.
    """
    whole = embedded_text(title, heading_path, text)
    return f"{whole.removesuffix(text)}{whole}"


def fitting_title(title: str, token_spans: TokenSpans, max_tokens: int) -> str:
    """The title on one line, cut to a quarter of a chunk of `max_tokens` tokens, so that text has room beside it."""
    return clipped(title, token_spans, max_tokens // 4)


def clipped(line: str, token_spans: TokenSpans, limit: int) -> str:
    """`line` with its white space collapsed, cut at its end to at most `limit` tokens."""
    line = " ".join(line[: 2 * MAX_CHARS_PER_TOKEN * limit].split())[: MAX_CHARS_PER_TOKEN * limit]
    spans = token_spans(line)
    while len(spans) > limit:
        # A cut word may be tokenized anew into more pieces, and several tokens may share one character.
        last = spans[limit - 1][1] if limit else 0
        line = line[: min(last, len(line) - 1)].rstrip()
        spans = token_spans(line)
    return line
