"""The sentences of a chunk that answer best, by BM25 over the chunk's own sentences.

Splitting and folding know no language: they go by Unicode punctuation, Markdown lines, and character pairs in
scripts that are written without spaces.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import TypeAlias

from rank_bm25 import BM25Plus

Span: TypeAlias = tuple[int, int]

# Chunk text that never ends a sentence (code, lists, poems) is cut at its line ends beyond this many characters.
_LONG = 400
_FAINT = 0.25

_STOPS = ".!?…"
_WIDE_STOPS = "。！？｡؟۔।॥։።"  # no space needs to follow
# One leading character class lets the matcher skip ahead; possessive, so that a page of dots costs no more than text.
_CLOSING = r"[\"'”’»)\]}」』）】〉》*_`]*+"
_BOUNDARY = re.compile(
    rf"[{_STOPS}{_WIDE_STOPS}\n](?:"
    rf"(?<=[{_STOPS}])(?<![{_STOPS}][{_STOPS}])[{_STOPS}]*+{_CLOSING}(?=\s+(?P<next>\S))"
    rf"|(?<=[{_WIDE_STOPS}])[{_WIDE_STOPS}]*+{_CLOSING}"
    r"|(?<=\|\n)"
    r"|(?<=\n)(?:\s*\n|(?=\s*(?:[-*+•|>#]|\d{1,3}[.)]\s|```))))"
)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t][^\n]*\n", re.MULTILINE)
_ABBREVIATION = re.compile(
    r"(?:\b[^\W\d_]|\b(?:e\.g|i\.e|cf|vs|etc|approx|no|nos|fig|figs|sec|ch|vol|pp|eq|al|mr|mrs|ms|dr|prof|st|jr|sr|inc|ltd))\.$",
    re.IGNORECASE,
)

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han, Hangul
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U000323af"
)
# Vowel signs of Indic scripts are no word characters to `re`; the dandas between them end sentences.
_WORD = re.compile(rf"[{_UNSPACED}]+|(?:[^\W_{_UNSPACED}]|[\u0900-\u0963\u0966-\u0dff])+")
_UNSPACED_CHARACTER = re.compile(rf"[{_UNSPACED}]")
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")


def highlights(query: str, text: str, limit: int = 3) -> list[Span]:
    """At most `limit` spans of `text`, the sentences that match `query` best, in reading order.

    Each span is a sentence without surrounding space that shares a term with the query and scores at least a
    quarter of the best; empty when none shares a term.
    Grammatical words of English count only where the query has no others.
    """
    asked = _subject(_terms(query))
    spans = sentences(text)
    corpus = [_with_singles(text[start:end]) for start, end in spans]
    present = asked.intersection(*[set().union(*corpus)]) if corpus else set()
    if not present:
        return []
    # With delta 0 this is BM25 under an IDF that stays above 0; Okapi's is 0 or less in corpora of two sentences.
    scores = BM25Plus(corpus, delta=0).get_scores(sorted(present))
    worthy = [place for place in range(len(spans)) if scores[place] >= _FAINT * max(scores)]
    best = sorted(worthy, key=lambda place: -scores[place])[:limit]
    return [spans[place] for place in sorted(best)]


def sentences(text: str) -> list[Span]:
    """Spans of the sentences of `text` in order, without surrounding space; headings, list items and rows count."""
    spans: list[Span] = []
    start = 0
    for end in [*_boundaries(text), len(text)]:
        spans.extend(_lines(text, start, end) if end - start > _LONG else [(start, end)])
        start = end
    return [stripped for span in spans if (stripped := _strip(text, *span))]


def _boundaries(text: str) -> list[int]:
    ends = {match.end() for match in _HEADING.finditer(text)}
    ends.update(match.end() for match in _BOUNDARY.finditer(text) if not _runs_on(text, match))
    return sorted(ends)


def _runs_on(text: str, match: re.Match[str]) -> bool:
    """True where a small letter follows, or the full stop belongs to an abbreviation or an initial."""
    if match["next"] is None:
        return False
    return match["next"].islower() or (match[0] == "." and _abbreviated(text, match.end()))


def _abbreviated(text: str, end: int) -> bool:
    return _ABBREVIATION.search(text, max(0, end - 9), end) is not None


def _lines(text: str, start: int, end: int) -> list[Span]:
    places = [start, *(start + match.end() for match in re.finditer("\n", text[start:end])), end]
    return list(pairwise(places))


def _strip(text: str, start: int, end: int) -> Span | None:
    sentence = text[start:end]
    left = start + len(sentence) - len(sentence.lstrip())
    right = start + len(sentence.rstrip())
    return (left, right) if left < right else None


def _terms(text: str) -> list[str]:
    """Folded words; runs of unspaced scripts as character pairs."""
    if text.isascii():
        return [_singular(word) if word[-1] == "s" else word for word in _WORD.findall(text.lower())]
    terms: list[str] = []
    for word in _WORD.findall(_folded(text)):
        if not _UNSPACED_CHARACTER.match(word):
            terms.append(_singular(word))
        elif len(word) == 1:
            terms.append(word)
        else:
            terms.extend(word[place : place + 2] for place in range(len(word) - 1))
    return terms


def _with_singles(text: str) -> list[str]:
    """The terms of a sentence, and the single characters of its unspaced scripts for queries of one character."""
    terms = _terms(text)
    return terms if text.isascii() else [*terms, *set(_UNSPACED_CHARACTER.findall(text))]


def _folded(text: str) -> str:
    """Small letters without accents; compatibility forms (full width, ligatures) as their plain letters."""
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold())))


def _subject(terms: list[str]) -> set[str]:
    return set(terms) - _GRAMMAR or set(terms)


def _singular(word: str) -> str:
    """Harman's S-stemmer (How effective is suffixing?, 1991): plurals only, and the same for query and text."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]


# English words that carry a question's grammar rather than its subject
_GRAMMAR = frozenset(
    _terms(
        "a about an and any are as at be been being by can could did do does for from had has have how i if in into is"
        " it its ll may me my no not of on or our re s shall should so t than that the their them then there these they"
        " this those to was we were what when where which who whom whose why will with would you your"
    )
)
