"""Lengths in tokens of any stretch of one text, from a single pass of the tokenizer."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator

from rag_service.chunking.base import MAX_CHARS_PER_TOKEN, TokenSpans

# Characters tokenized at a time: bounds the memory of a large document's spans.
_SLICE = 65_536


class Ruler:
    """Measures text[a:b] in tokens, never below one token for every `MAX_CHARS_PER_TOKEN` characters."""

    def __init__(self, text: str, token_spans: TokenSpans) -> None:
        self._text = text
        self._starts = array("Q")
        for start, end in _slices(text):
            self._starts.extend(start + span[0] for span in token_spans(text[start:end]))

    def tokens(self, start: int, end: int) -> int:
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def size(self, start: int, end: int) -> int:
        return max(self.tokens(start, end), (end - start) // MAX_CHARS_PER_TOKEN)

    def reach(self, start: int, budget: int) -> int:
        """The furthest end, after `start`, up to which the text measures at most `budget`."""
        token = bisect_left(self._starts, start) + max(budget, 1)
        limit = self._starts[token] if token < len(self._starts) else len(self._text)
        return max(min(limit, start + MAX_CHARS_PER_TOKEN * max(budget, 1)), start + 1)

    def word_end(self, start: int, end: int) -> int:
        """The last place in the final quarter of text[start:end] that splits no word; `end` if there is none."""
        for place in range(end, end - (end - start) // 4, -1):
            if self.between_words(place):
                return place
        return end

    def between_words(self, place: int) -> bool:
        around = self._text[max(place - 1, 0) : place + 1]
        return len(around) < 2 or around[0].isspace() or around[1].isspace()


def _slices(text: str) -> Iterator[tuple[int, int]]:
    """Consecutive slices that end at a line, else at a blank, else wherever they must."""
    start = 0
    while start < len(text):
        end = min(start + _SLICE, len(text))
        if end < len(text):
            low = end - _SLICE // 8
            end = (
                max(text.rfind("\n", low, end), text.rfind(" ", low, end) if "\n" not in text[low:end] else -1) + 1
                or end
            )
        yield start, end
        start = end
