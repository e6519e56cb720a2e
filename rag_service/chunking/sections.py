"""Sections of a document: which belong together in one chunk, and which headings stand above a place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag_service.chunking.outline import Outline
from rag_service.chunking.ruler import Ruler
from rag_service.types import PageStart

_PAGE_LEVEL = 7  # below every heading


@dataclass(slots=True)
class Section:
    """text[start:end] from a heading or page start to the next one; `stop` is the index after its last subsection."""

    start: int
    end: int
    level: int
    stop: int


class Map:
    """Answers which headings and which page a place of the document lies under."""

    def __init__(self, outline: Outline, pages: Sequence[PageStart]) -> None:
        self._headings = [heading.start for heading in outline.headings]
        self._pages = sorted(pages, key=lambda page: page.start)
        self._page_starts = [page.start for page in self._pages]
        self._above: list[tuple[str, ...]] = []
        self._paths: list[tuple[str, ...]] = []
        stack: list[tuple[int, str]] = []
        for heading in outline.headings:
            while stack and stack[-1][0] >= heading.level:
                stack.pop()
            self._above.append(tuple(title for _, title in stack if title))
            stack.append((heading.level, heading.title))
            self._paths.append(tuple(title for _, title in stack if title))

    def path(self, place: int) -> tuple[str, ...]:
        """Titles of the headings strictly above `place`, outermost first: a heading is not above itself."""
        index = bisect_left(self._headings, place)
        if index < len(self._headings) and self._headings[index] == place:
            return self._above[index]
        return self._paths[index - 1] if index else ()

    def page(self, place: int) -> int | None:
        index = bisect_right(self._page_starts, place)
        return self._pages[index - 1].page if index else None


def sections_of(outline: Outline, pages: Sequence[PageStart], length: int) -> list[Section]:
    """All sections in order; together they are the whole text."""
    levels = {0: 0} | {page.start: _PAGE_LEVEL for page in pages if 0 < page.start < length}
    levels |= {heading.start: heading.level for heading in outline.headings}
    starts = sorted(levels)
    sections = [Section(start, end, levels[start], 0) for start, end in zip(starts, [*starts[1:], length], strict=True)]
    open_sections: list[Section] = []
    for index, section in enumerate(sections):
        while open_sections and open_sections[-1].level >= section.level:
            open_sections.pop().stop = index
        open_sections.append(section)
    for section in open_sections:
        section.stop = len(sections)
    return sections


def section_at(text: str, outline: Outline, place: int) -> tuple[int, int]:
    """Characters of the section that `place` is in, subsections included; before the first heading, all up to there.

    Where headings follow one another without a text of their own, the section is the one of the last of them.
    """
    headings = outline.headings
    at = bisect_right(headings, place, key=lambda heading: heading.start) - 1
    if at < 0:
        return 0, headings[0].start if headings else len(text)
    while at + 1 < len(headings) and headings[at + 1].level > headings[at].level:
        if not _stands_alone(text[headings[at].start : headings[at + 1].start]):
            break
        at += 1
    own = headings[at]
    return own.start, next((one.start for one in headings[at + 1 :] if one.level <= own.level), len(text))


def _stands_alone(text: str) -> bool:
    """Whether a heading and its underline are all there is."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return len(lines) == 1 or (len(lines) == 2 and not lines[1].strip("=-"))


class Grouping:
    """Joins small sections to the ones that follow them, up to about half a chunk.

    Joined are only sections under the same headings, or a section and its own subsections. A top-level heading or a
    new page is joined only to something tiny (an eighth of a chunk), such as a heading that stands alone.
    """

    def __init__(self, sections: Sequence[Section], ruler: Ruler, where: Map) -> None:
        self._sections = sections
        self._ruler = ruler
        self._where = where

    def groups(self, budget: int) -> Iterator[tuple[int, int]]:
        """Character spans of sections that belong together, in order; one may still measure more than `budget`."""
        first = 0
        while first < len(self._sections):
            stop = first + 1
            while stop < len(self._sections) and (further := self._joined(first, stop, budget)) > stop:
                stop = further
            yield self._sections[first].start, self._sections[stop - 1].end
            first = stop

    def _joined(self, first: int, stop: int, budget: int) -> int:
        """How far sections[first:stop] may grow: to behind the next section, all its subsections included, or not."""
        start, following = self._sections[first].start, self._sections[stop]
        if not self._is_under(start, following.start):
            return stop
        end = self._sections[following.stop - 1].end
        size, added = self._ruler.size(start, following.start), self._ruler.size(following.start, end)
        tiny = size < budget // 8
        apart = following.level == 1 or self._where.page(start) != self._where.page(end - 1)
        wanted = tiny if apart else size < budget // 2 or added < budget // 8
        if wanted and self._ruler.size(start, end) <= budget:
            return following.stop
        introduces = tiny and stop < self._sections[first].stop
        return stop + 1 if introduces else stop

    def _is_under(self, start: int, place: int) -> bool:
        above = self._where.path(start)
        return self._where.path(place)[: len(above)] == above
