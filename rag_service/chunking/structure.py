"""The structure-aware chunker: sections first, then blocks, items, lines, sentences, and words as the last resort."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from rag_service.chunking.base import TokenSpans, bare_text, clipped, embedded_text, fitting_title, lexical_text
from rag_service.chunking.outline import Cut, outline_of
from rag_service.chunking.ruler import Ruler
from rag_service.chunking.sections import Grouping, Map, sections_of
from rag_service.types import ChunkText, ParsedDocument

_SMALLEST = 16
# Tokens by which a chunk alone may measure more than within its document, when no word was cut: a tokenizer may
# write the start of a text, or the line break before it, as a token of its own.
_SLACK = 8


class StructureChunker:
    """Cuts where the document itself divides, into chunks of at most `max_tokens` tokens with their heading path.

    Every character that is not white space lies in exactly one chunk; heading lines belong to the chunk they open.
    """

    def __init__(self, token_spans: TokenSpans, max_tokens: int, *, context: bool = True) -> None:
        """Without `context` passages are embedded bare: title and headings are told, but neither embedded nor counted.

        Raises ValueError for less than 16 tokens.
        """
        if max_tokens < _SMALLEST:
            raise ValueError(f"a chunk needs room for at least {_SMALLEST} tokens, not {max_tokens}")
        self._token_spans = token_spans
        self._max_tokens = max_tokens
        self._context = context

    @property
    def identity(self) -> str:
        return f"structure-1(max={self._max_tokens}{'' if self._context else ', bare'})"

    def chunk(self, document: ParsedDocument, title: str) -> list[ChunkText]:
        if not document.text.strip():
            return []
        whole = embedded_text if self._context else bare_text
        return list(_Cutter(document, title, self._token_spans, self._max_tokens, whole).chunks())

    def fitting_title(self, title: str) -> str:
        return fitting_title(title, self._token_spans, self._max_tokens)

    def embedded(self, title: str, content: ChunkText) -> str:
        return embedded_text(title, content.heading_path, content.text) if self._context else content.text

    def counted(self, title: str, content: ChunkText) -> str:
        return lexical_text(title, content.heading_path, content.text) if self._context else content.text


class _Cutter:
    """The work on one document. `embedded` makes what is embedded of title, headings and passage."""

    def __init__(
        self,
        document: ParsedDocument,
        title: str,
        token_spans: TokenSpans,
        max_tokens: int,
        embedded: Callable[[str, Sequence[str], str], str],
    ) -> None:
        self._document = document
        self._text = document.text
        self._token_spans = token_spans
        self._max_tokens = max_tokens
        self._embedded = embedded
        self._title = fitting_title(title, token_spans, max_tokens)
        self._ruler = Ruler(document.text, token_spans)
        self._outline = outline_of(document.text, document.layout)
        self._where = Map(self._outline, document.pages)
        for page in document.pages:
            self._outline.cut(page.start, Cut.PAGE)
        self._cuts = sorted(self._outline.cuts)
        self._prefixes: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {}

    def chunks(self) -> Iterator[ChunkText]:
        sections = sections_of(self._outline, self._document.pages, len(self._text))
        budget = self._max_tokens - self._prefix(())[1]
        for start, end in Grouping(sections, self._ruler, self._where).groups(budget):
            for first, last in self._split(start, end):
                yield from self._fitted(first, last, self._prefix(self._where.path(first)))

    def _split(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Parts of text[start:end] that fit by measure, of even size as far as the structure allows."""
        while True:
            budget = self._max_tokens - self._prefix(self._where.path(start))[1]
            size = self._ruler.size(start, end)
            if size <= budget:
                yield start, end
                return
            cut = self._best_cut(start, size, budget)
            yield start, cut
            start = cut

    def _best_cut(self, start: int, size: int, budget: int) -> int:
        """The best place in the second half of the budget; of equal ones, the one that leaves even parts."""
        ideal = size / -(-size // budget)
        furthest = self._ruler.reach(start, min(budget, size - budget // 8))
        nearest = self._ruler.reach(start, budget // 2)
        places = self._cuts[bisect_right(self._cuts, nearest) : bisect_right(self._cuts, furthest)]
        if not places:
            return self._ruler.word_end(start, furthest)

        def rank(place: int) -> tuple[Cut, float]:
            return self._outline.cuts[place], abs(self._ruler.size(start, place) - ideal)

        return min(places, key=rank)

    def _fitted(self, start: int, end: int, prefix: tuple[tuple[str, ...], int]) -> Iterator[ChunkText]:
        """The chunk of text[start:end], halved for as long as it really has more tokens than it measured."""
        path, cost = prefix
        passage = self._text[start:end]
        start += len(passage) - len(passage.lstrip())
        passage = passage.strip()
        end = start + len(passage)
        if not passage:
            return
        tokens = self._ruler.tokens(start, end)
        whole_words = self._ruler.between_words(start) and self._ruler.between_words(end)
        if not whole_words or tokens + cost + _SLACK > self._max_tokens:
            tokens = len(self._token_spans(self._embedded(self._title, path, passage))) - cost
        if tokens + cost > self._max_tokens and len(passage) > 1:
            middle = self._ruler.word_end(start, min(self._ruler.reach(start, tokens // 2), start + len(passage) // 2))
            yield from self._fitted(start, middle, prefix)
            yield from self._fitted(middle, end, self._prefix(self._where.path(middle)))
            return
        yield ChunkText(passage, start, end, self._where.page(start), path, max(tokens, 0))

    def _prefix(self, path: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """The heading path as far as it fits beside the title in a third of a chunk, and the tokens of both.

        Outer headings are left out first; an innermost heading that is too long by itself is cut.
        """
        if path not in self._prefixes:
            fitting, limit = path, self._max_tokens // 3
            while len(fitting) > 1 and self._cost(fitting) > limit:
                fitting = fitting[1:]
            if fitting and self._cost(fitting) > limit:
                room = limit - self._cost(()) - 2
                fitting = tuple(filter(None, [clipped(fitting[0], self._token_spans, max(room, 0))]))
            self._prefixes[path] = fitting, self._cost(fitting)
        return self._prefixes[path]

    def _cost(self, path: tuple[str, ...]) -> int:
        return len(self._token_spans(self._embedded(self._title, path, "")))
